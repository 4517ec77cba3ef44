db_sqlite: changes that come while a commit waits for the disk are committed together: thousands a second instead of hundreds.
