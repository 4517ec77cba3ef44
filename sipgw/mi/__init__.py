"""The management interface: commands and JSON-RPC; its sockets are modules."""
