"""Tests of ``sipgw/xmpp``."""
