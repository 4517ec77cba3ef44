The module `pua_xmpp`: phones see whether Jabber users are there (SUBSCRIBE, PIDF), and Jabber users who has a phone registered.
