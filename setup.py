"""Adds what setup.cfg cannot say: with ``SIPGW_COMPILE=1`` the files of ``COMPILED`` become extensions, by mypyc.

Without it nothing is compiled, and no compiler is needed: the wheel is pure. docs/performance.md tells what it pays."""

import os

from setuptools import setup

COMPILED = [
    f"sipgw/sip/{name}.py"
    for name in (
        "address auth body composing cpim dialog edits grammar head headers imdn layer limits message nonce replies sdp stream"
        " target timers transaction uri"
    ).split()
]
"""All of ``sipgw/sip`` but ``errors``, ``actions`` (its dataclasses with slots end a compiled program with a fault at import) and
``trees`` (its regular expression names surrogates)."""

if os.environ.get("SIPGW_COMPILE") == "1":
    try:
        from mypyc.build import mypycify
    except ImportError:  # an isolated build asks first what it needs: this
        setup(setup_requires=["mypy>=2.4"])
    else:
        options = ["--config-file=", "--strict", "--ignore-missing-imports"]
        setup(setup_requires=["mypy>=2.4"], ext_modules=mypycify([*options, *COMPILED], opt_level="3", group_name="sipgw"))
else:
    setup()
