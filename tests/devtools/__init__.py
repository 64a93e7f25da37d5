"""Tests of microwsgi.devtools."""
