"""`kubectl moe autoscaler explain`: why a deployment of the cluster has as many groups as it has."""

import argparse
import sys
import time

from moe_operator.cli.cluster import read_for_plan
from moe_operator.cli.data_text import data_text
from moe_operator.cli.errors import ClusterError
from moe_operator.cli.manifest import deployment_of
from moe_operator.cli.scaling_explanation import explanation, explanation_data
from moe_operator.cli.scaling_text import explanation_text


def run(arguments: argparse.Namespace) -> int:
    """Exit 0; 1 where there is no such deployment or no answer. Raises UsageError."""
    try:
        read = read_for_plan(arguments.kubeconfig, arguments.namespace, name=arguments.name, config=False)
    except ClusterError as error:
        print(f"kubectl moe: {error}", file=sys.stderr)
        return 1
    found = explanation(deployment_of(read.obj), time.time())
    if arguments.output == "json":
        print(data_text(explanation_data(found), "json"))
    else:
        print(explanation_text(found, absolute=arguments.absolute))
    return 0
