"""Tests of microwsgi.commands."""
