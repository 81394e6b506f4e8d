"""Faults, injected from outside into real jobs; `python -m benchmarks.faults --help`."""
