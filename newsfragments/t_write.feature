t_write_req and t_write_unix hand requests to other programs (voicemail), with what tw_append names; tm:reply answers them.
