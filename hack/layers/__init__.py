"""Runs the test layers one after the other and sums them up."""
