usrloc shares contacts between servers by a Redis, in OpenSIPS's working modes full-sharing-cachedb-cluster and federation-cachedb-cluster (lookup()'s flag global), without a clusterer.
