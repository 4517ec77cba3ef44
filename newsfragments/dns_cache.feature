dns_cache: answers of name servers that several machines share, in a cachedb.
