Management commands also by datagram (mi_datagram, UDP and unix), by XML-RPC (mi_xmlrpc), from a browser (mi_html) and from the script (mi_script).
