twistd sipgw-b2bua --listen udp:HOST:PORT --next-hop sip:HOST is a back-to-back user agent without a script; --show prints the configuration it makes.
