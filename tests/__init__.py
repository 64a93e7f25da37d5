"""Tests, in the shape of the package: tests/wire/test_head.py is for microwsgi/wire/head.py."""
