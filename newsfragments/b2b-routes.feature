script_req_route and script_reply_route of b2b_entities see what comes within calls and may change it; what a script has changed before b2b_init_request, or before b2b_pass_request, goes out.
