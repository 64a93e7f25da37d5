"""What apps/probe.py and apps/path.py are made of: whom they may probe, how, and what is kept of it."""
