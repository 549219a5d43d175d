"""Makers of test objects: sensible defaults, overrides by keyword."""
