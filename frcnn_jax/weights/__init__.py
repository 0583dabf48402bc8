"""Weights of other projects: reading, checking, converting, writing."""
