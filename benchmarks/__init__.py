"""One script per claim, always beside the peer in the same run.  `python -m benchmarks --help`."""
