`trace("id", "b")` and `tracer:start ... scope=b` show all legs of a back-to-back call.
