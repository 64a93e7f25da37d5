"""Tools for development, as plain WSGI: stack, tracer, error page, lint, timing."""
