Module permissions: addresses and networks from the database (check_address, check_source_address, get_source_group) and files of rules (allow_routing, allow_register, allow_uri).
