"""Brings a model's weights into a cache folder, once for everybody who shares it.

Runs in a Job's pod or as an init container of serving pods: as any user, with a read-only root, many at once on one
folder, ended at any moment. Imports nothing of the operator but the names of the cache (`catalog.weights_layout`).
"""
