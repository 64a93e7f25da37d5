"""Tests of microwsgi.server."""
