A redirect server: examples/redirect.cfg answers calls with the contacts of whom they are for.
