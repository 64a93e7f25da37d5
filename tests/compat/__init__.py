"""Frameworks and packages from PyPI on our server."""
