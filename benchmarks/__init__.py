"""Measurements against public peers; `python -m benchmarks.ops` from the repository."""
