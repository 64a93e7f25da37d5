"""Tests of microwsgi.cli."""
