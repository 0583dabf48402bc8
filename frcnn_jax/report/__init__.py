"""The evaluation report: one HTML file and tables, made without JAX from run files."""
