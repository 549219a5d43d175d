"""The real vLLM on the CPU, for local clusters and end-to-end tests: an environment to run it and a tiny
model to serve.
"""
