"""What an API server answers: one table of calls with the answers expected, run against the in-memory server by a unit
test and against a real one by a cluster test. So the in-memory server cannot be wrong about any of it unnoticed.

Each call's outcome is reduced to what matters: never uids, versions or times themselves, but how they relate.
"""

from fakecluster.contract import applying, deleting, deployments, objects
from fakecluster.contract.base import CASES, config

__all__ = ["CASES", "applying", "config", "deleting", "deployments", "objects"]
