Management commands over a named pipe (mi_fifo) and over HTTP (httpd, mi_http) answer as OpenSIPS's do; opensips-cli and opensips-mi drive both.
