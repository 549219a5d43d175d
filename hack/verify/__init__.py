"""Compares the planner's arithmetic with the engine itself."""
