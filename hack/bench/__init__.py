"""Benchmarks: figures to publish, never pass or fail."""
