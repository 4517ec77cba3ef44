`trace` in the shell of manhole draws all legs of a call in one ladder: back to back, under a hidden Call-ID, and the XMPP stanzas and SMPP PDUs that a SIP MESSAGE came from or became.
