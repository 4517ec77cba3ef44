sql_cacher: tables of SQL databases kept in a key-value store, whole or row by row; `$sql_cached_value` waits for a row without holding up other calls.
