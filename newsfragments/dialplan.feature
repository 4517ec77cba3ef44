Module dialplan: numbers and other texts translated by rules from the database.
