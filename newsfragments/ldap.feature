ldap and h350: searches in directories with sessions, failover, StartTLS and time limits, in threads that never hold up the server; what variables put into a URL is escaped.
