acc writes one CDR for each call with do_accounting("...", "cdr"): at its end, whoever ends it, and over restarts if dialogs are in the database.
