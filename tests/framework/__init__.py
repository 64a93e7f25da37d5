"""Tests of microwsgi/framework."""
