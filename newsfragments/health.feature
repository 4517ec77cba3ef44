systemd is told when the server is ready, reloads, stops and is alive (Type=notify, examples/sipgw.service); the module health has pages for probes.
