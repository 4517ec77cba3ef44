"""The whole bench, ``python -m bench [--quick]``: in memory, then over loopback beside other servers, then with many
contacts, then with a database, then texts by SMPP.

The last line names the figures that count."""

import argparse

from bench import contacts, durable, loopback, memory, operations, texts

options = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
options.add_argument("--quick", action="store_true", help="one round of a tenth of the work: what is there, not how fast it is")
quick = options.parse_args().quick
memory.bench_parse()
memory.bench_route()
memory.bench_registrar(10_000 if quick else 100_000)
operations.measure(2 if quick else 5)
most = loopback.main(1, 0.1) if quick else loopback.main()
many = contacts.main(10_000) if quick else contacts.main()
stored = durable.main(10_000, 1000) if quick else durable.main()
print(f"{most}; {many}; {stored}; {texts.main(500) if quick else texts.main()}")
