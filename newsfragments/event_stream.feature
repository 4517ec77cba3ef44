Events also as JSON-RPC over TCP (event_stream) and as XML-RPC calls (event_xmlrpc).
