acc accounts to the tables acc and missed_calls of a database and by events, as OpenSIPS does; a database that is down delays no call, and its records are written when it is back.
