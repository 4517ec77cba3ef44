A redirect server (3xx with the destinations in Contact) and uac_redirect, which follows redirections in a failure route; options and path.
