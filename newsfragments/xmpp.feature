The module `xmpp`: SIP phones and Jabber users write to each other through an XMPP server, with receipts, chat states, threads and errors both ways.
