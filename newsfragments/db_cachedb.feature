db_cachedb keeps the tables of OpenSIPS in a Redis that several machines share.
