"""The project's one harness: stack depth, latency, throughput, memory, start-up, beside the servers of the field.

`python -m benchmarks` measures and reports; `benchmarks/README.md` says how each figure is taken.
"""
