"""The whole bench, ``python -m bench``: pieces and whole operations in memory, then over loopback beside other servers."""

from bench import loopback, memory, operations

memory.bench_parse()
memory.bench_registrar()
operations.main()
loopback.main()
