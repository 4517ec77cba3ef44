Databases: db_sqlite opens SQLite files (`sqlite:///path`); what is changed is on disk when the change is answered, no query holds up calls, and each has a time limit.
