Module ratelimit: limits by names that the script gives, with all five algorithms, of one machine or of several that share a cachedb store.
