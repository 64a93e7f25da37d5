"""The parts of apps/probe.py and apps/path.py: the policy, the probes, the outcomes, and the rounds."""
