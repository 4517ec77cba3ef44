cfgutils and statistics: shared variables, locks, sleep and usleep that let one message wait and no other, time recurrences (RFC 2445), counters and series of the script's own.
