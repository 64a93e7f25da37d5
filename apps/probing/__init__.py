"""What apps/probe.py and apps/path.py are made of: whom they may ask, how they ask, and what they remember."""
