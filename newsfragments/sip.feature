SIP messages are read once and left octet for octet as they came; what RFC 4475 and RFC 5118 call malformed is answered 400 (or 505), over UDP and streams alike.
