"""The sections of `benchmarks.accelerator`; each runs in a process of its own."""
