callops transfers calls from the middle, blind and attended, and puts them on hold, by MI, script and with events; see examples/transfer.cfg.
