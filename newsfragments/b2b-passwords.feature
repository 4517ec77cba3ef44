b2b_entities answers the challenges of servers that calls go to, of the INVITE and of requests within the call, with the credentials of uac_auth.
