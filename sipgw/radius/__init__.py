"""RADIUS (RFC 2865, 2866) as a client: configuration files of radiusclient, its dictionaries, requests over UDP.

pyrad (an extra, ``pip install sipgw[radius]``) writes and reads packets; sending them and waiting is done here."""
