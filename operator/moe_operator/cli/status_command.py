"""`kubectl moe status`: how a deployment of the cluster is."""

import argparse

from moe_operator.cli.cluster import read_status
from moe_operator.cli.manifest import deployment_of
from moe_operator.cli.status_text import describe_deployment


def run(arguments: argparse.Namespace) -> int:
    """Exit 0. Raises UsageError."""
    obj, pods = read_status(arguments.kubeconfig, arguments.namespace, arguments.name)
    print(describe_deployment(deployment_of(obj), pods))
    return 0
