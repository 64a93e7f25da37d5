"""Benchmarks of microwsgi and other WSGI servers: stack depth, latency, throughput, memory and start-up time.

`python -m benchmarks` measures and reports. `benchmarks/README.md` explains how each figure is measured.
"""
