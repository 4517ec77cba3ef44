script_trace logs each step of a script; scripts without it cost nothing more.
