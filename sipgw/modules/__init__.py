"""One file a module, named as in OpenSIPS."""
