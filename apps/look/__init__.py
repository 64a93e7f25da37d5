"""The pages of the network examples: a frame, a stylesheet, a script, charts, and the format of Prometheus.

The charts are SVG that the server draws: a chart package would be larger than all of the examples together, and its pages would
be empty without their script.
"""
