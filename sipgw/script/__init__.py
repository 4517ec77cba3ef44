"""The opensips.cfg language, pure: text in, Python functions out."""
