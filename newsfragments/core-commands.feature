All 42 management commands of the core answer: log_level_filter, log_mute_state, profiling_proc (steps as events), mem:* (objects by type in the log), cache:*, status_report:*.
