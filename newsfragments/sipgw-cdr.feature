sipgw cdr prints accounted calls as CSV, from a database or that of a script, with the cells that a spreadsheet would run made harmless.
