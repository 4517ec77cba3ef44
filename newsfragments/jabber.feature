The module `jabber`: SIP users speak in Jabber by accounts of their own, from the table jusers.
