"""Spec and plan in, Kubernetes objects out: pure builders of plain dicts, one file per kind of child.

Two rules hold for all of them. The same input gives the same bytes, as what is rendered is hashed and
compared. And a group is immutable: what its pods are made of comes from a revision, which is rendered once
and kept.
"""
