The module `pua_xmpp`: phones see whether Jabber users are there (SUBSCRIBE, PIDF), and Jabber users what SIP users say of themselves
(we subscribe for them, authenticate, refresh, and go on after a restart), or whether a phone is registered. A SIP user may say who
sees her.
