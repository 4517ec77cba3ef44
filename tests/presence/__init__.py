"""Tests of ``sipgw/presence``."""
