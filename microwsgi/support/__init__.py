"""Helpers of all layers, on the standard library only."""
