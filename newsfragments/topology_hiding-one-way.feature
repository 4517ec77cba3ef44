topology_hiding hides one way only where a socket has th_internal_trusted_tag: what goes in keeps Vias, Contact and Record-Routes; $TH_decoded_contact and $TH_decoded_routes say where a request goes.
