"""Directories: LDAP URLs with session names, the configuration file of sessions, searches that never hold up the reactor.

Only ``ldap3_directory.py`` knows ldap3, an extra (``pip install sipgw[ldap]``); another library needs one class like it."""
