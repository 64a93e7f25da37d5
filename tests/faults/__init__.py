"""Faults of the system and of applications: the service goes on, or ends with a true message."""
