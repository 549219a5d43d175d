"""Requests, vLLM groups and a fleet in virtual time, to judge policies of scaling before they are let near GPUs.

Needs the distribution's extra `simulator` (numpy, numba), which nothing else of the operator imports.
"""
