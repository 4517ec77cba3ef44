"""``twistd sipgw``."""

from twisted.application.service import ServiceMaker

sipgw = ServiceMaker("sipgw", "sipgw.service", "A SIP server that runs opensips.cfg.", "sipgw")  # type: ignore[no-untyped-call]
