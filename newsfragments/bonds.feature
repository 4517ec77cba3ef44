Sockets can be bonds (socket = bond:name {...}, socket_belongs_to_bond); our own requests, CANCELs and ACKs have a User-Agent (user_agent_header).
