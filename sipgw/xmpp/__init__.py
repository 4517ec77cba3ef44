"""SIP to Jabber: addresses, messages and presence translated, and the link to an XMPP server (XEP-0114)."""
