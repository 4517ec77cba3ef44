"""Redis as a store that several machines share: one server, several to fall back on, those that sentinels watch, or a cluster.

``Redis`` (``client.py``) is what others use; nothing but ``connection.py`` imports txredisapi, which is an extra
(``pip install sipgw[redis]``) and must not be imported before the reactor is chosen."""
