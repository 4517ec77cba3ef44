"""SIP itself, pure: bytes and ``now`` in, messages and actions out (RFC 3261)."""
