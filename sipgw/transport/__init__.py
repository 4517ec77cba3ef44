"""Sockets: Twisted protocols over the pure SIP floor."""
