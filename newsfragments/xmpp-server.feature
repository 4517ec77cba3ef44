The module `xmpp` with `backend` "server": sipgw speaks with the servers of Jabber users itself, by TLS, certificates and dialback, found by SRV records.
