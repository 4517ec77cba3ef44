event_virtual joins several event sockets to one (PARALLEL, FAILOVER, ROUND-ROBIN); event_flatstore writes events into files and opens them anew by time, lines, size or command.
