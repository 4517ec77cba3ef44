Module dialog: the server knows its calls, counts them in profiles, ends them in time or by command, pings both sides, and goes on with them after a restart.
