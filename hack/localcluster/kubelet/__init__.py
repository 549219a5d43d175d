"""A kubelet whose containers are local processes: one process serves every node of a local cluster.

README.md holds the contract: which parts of a kubelet's behaviour it keeps, each with its test.
"""
