"""Tests of the package sipgw.web."""
