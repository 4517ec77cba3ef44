"""Messages over real sockets to a server in its own process, octet for octet."""
