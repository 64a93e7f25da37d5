"""What the commands of `microwsgi` do, a module for each but `serve`; `microwsgi.cli` has the table."""
