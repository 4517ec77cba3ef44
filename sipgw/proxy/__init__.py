"""The proxy room: forwarding, response contexts, record-routing, location."""
