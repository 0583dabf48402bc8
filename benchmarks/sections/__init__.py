"""The sections of `benchmarks.accelerator`; each runs in its own process."""
