# `make` lists the commands. Options go in ARGS: make test ARGS="-k chunked -x"; another Python in PYTHON.
PYTHON ?= python3

.PHONY: help serve test test-all test-pythons coverage soak check compare compat bench instructions fuzz tls-scan docs build clean
help serve test test-all test-pythons coverage soak check compare compat bench instructions fuzz tls-scan docs build clean:
	@$(PYTHON) dev.py $@ $(ARGS)
