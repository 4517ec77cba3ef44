mathops, uuid, diversion and benchmark.
