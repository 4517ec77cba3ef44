cachedb_sql: keys, values and counters in a table of an SQL database, shared by all machines that use it.
