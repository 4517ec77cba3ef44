"""The operator's doors: management over AMP, its small client, and a shell inside the running server."""
