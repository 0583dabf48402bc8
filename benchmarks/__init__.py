"""Measurements beside public peers; `python -m benchmarks.ops` from the repository."""
