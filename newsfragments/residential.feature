A script for the subscribers of several domains with everything in one database: examples/residential.cfg.
