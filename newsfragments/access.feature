Modules domain, alias_db, group, speeddial and userblacklist, on SQLite, MySQL and PostgreSQL.
