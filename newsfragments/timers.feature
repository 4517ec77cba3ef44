Statistic sipgw:timers: how many timers run.
