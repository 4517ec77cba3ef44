"""Presence: who wants to know of whom (RFC 6665), told to phones."""
