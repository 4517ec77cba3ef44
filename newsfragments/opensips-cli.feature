opensips-cli finds its way: MI's `version` begins as OpenSIPS's does, `ps` lists what receives at each socket, and its `trace` and `diagnose` commands work.
