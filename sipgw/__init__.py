"""sipgw: a SIP server that runs opensips.cfg scripts, in Python on Twisted."""

__version__ = "0.1.0"
