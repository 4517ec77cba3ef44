The console script sipgw understands OpenSIPS's own options (-f -l -F -C -c -D -d -m -M -u -g -P -w -p -o -n -N -A -V ...), and a log file of its own that SIGUSR1 opens anew.
