The PROXY protocol, versions 1 and 2: `allow_proxy_protocol`, `send_proxy_protocol` and `proxy_protocol` of a socket, and `$proxy_protocol(...)`, over TCP and UDP.
