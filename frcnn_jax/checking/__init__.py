"""Checks a data set before it is trained on: `frcnn check-data`."""
