"""The transaction user (RFC 3261 5): runs routes and performs actions."""
