docs/debugging.md shows how a fault is found in a running server.
