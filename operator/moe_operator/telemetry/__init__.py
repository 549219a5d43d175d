"""Reads engines into observations. The controller sees snapshots only; the loop that fills them is its own."""
