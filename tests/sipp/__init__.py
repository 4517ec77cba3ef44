"""sipp (Debian's sip-tester) against a real ``twistd -n sipgw`` on loopback.

``SIPGW_SIPP_SERVER`` runs the same scenarios against another server, to see that a scenario is right: a command line in which
``{cfg}``, ``{host}`` and ``{port}`` are filled in, for example ``opensips -F -f {cfg} -l udp:{host}:{port}``.
``SIPGW_SIPP_CONFIG`` names another configuration than ``tests/configs/household.cfg``."""
