E_PROFILING_SCRIPT tells of each route of the script that begins, calls another one or ends.
