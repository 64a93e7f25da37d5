"""Serve an application from the command line or a program: load it, listen, serve, stop."""
