"""Seeing what happens, as plain WSGI: the stack, the error page, the timing of a request."""
