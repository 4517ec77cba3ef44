"""``twistd sipgw`` and ``twistd sipgw-b2bua``."""

from twisted.application.service import ServiceMaker

sipgw = ServiceMaker("sipgw", "sipgw.service", "A SIP server that runs opensips.cfg.", "sipgw")  # type: ignore[no-untyped-call]
back_to_back = ServiceMaker(  # type: ignore[no-untyped-call]
    "sipgw-b2bua", "sipgw.back_to_back", "A SIP back-to-back user agent that hides each side from the other.", "sipgw-b2bua"
)
