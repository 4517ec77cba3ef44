sipgw top shows what a running server does, in the whole terminal: calls, transactions, registrations, rates, load, and the routes of the script that take the most time.
