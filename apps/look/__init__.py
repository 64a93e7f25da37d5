"""What the pages of the network examples look like: a frame, a stylesheet, a script of ten lines, charts.

The charts are SVG that the server draws: a package of charts would be larger than all of the examples, and its pages empty
without their script.
"""
