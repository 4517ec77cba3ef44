Databases in text files (db_text), rows at the end of files for accounting (db_flatstore), and several databases that look like one (db_virtual: FAILOVER, ROUND, PARALLEL).
