"""Tests of microwsgi.wire."""
