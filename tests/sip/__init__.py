"""Tests of sipgw."""
