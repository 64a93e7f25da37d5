"""Bytes in, values out: HTTP/1.1 as RFC 9112 and RFC 9110 define it. No socket, no thread, no WSGI."""
