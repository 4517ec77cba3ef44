acc tells RADIUS servers (backend aaa, aaa_url, acc_aaa_request), group asks them (aaa_is_user_in).
