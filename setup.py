"""Adds what setup.cfg cannot say: with ``SIPGW_COMPILE=1`` the files of ``COMPILED`` become extensions, by mypyc.

Without it nothing is compiled, and no compiler is needed: the wheel is pure. docs/performance.md tells what it pays."""

import os

from setuptools import setup

FILES = {
    "sip": "address auth body composing cpim dialog edits grammar head headers imdn layer limits message nonce replies sdp stream"
    " target timers transaction uri",
    "proxy": "forward lookup record_route register registrar saving",
}
"""Left out of ``sip``: ``errors``, ``actions`` (compiled, its dataclasses with slots end the program with a fault at import) and
``trees`` (its regular expression names surrogates). Of ``proxy`` it is what pays, and what nobody inherits from, copies or holds
by a weak reference: a compiled class allows none of these."""

COMPILED = [f"sipgw/{folder}/{name}.py" for folder, names in FILES.items() for name in names.split()]

if os.environ.get("SIPGW_COMPILE") == "1":
    try:
        from mypyc.build import mypycify
    except ImportError:  # an isolated build asks first what it needs: this
        setup(setup_requires=["mypy>=2.4"])
    else:
        options = ["--config-file=", "--ignore-missing-imports"]
        setup(setup_requires=["mypy>=2.4"], ext_modules=mypycify([*options, *COMPILED], opt_level="3", group_name="sipgw"))
else:
    setup()
