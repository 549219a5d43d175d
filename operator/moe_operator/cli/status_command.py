"""`kubectl moe status`: how a deployment of the cluster is, and what happened to it."""

import argparse
import sys
import time

from moe_operator.cli.cluster import read_status
from moe_operator.cli.data_text import data_text
from moe_operator.cli.errors import ClusterError
from moe_operator.cli.status_data import status_data
from moe_operator.cli.status_picture import picture
from moe_operator.cli.status_text import status_text


def run(arguments: argparse.Namespace) -> int:
    """Exit 0; 1 where there is no such deployment or no answer. Raises UsageError."""
    try:
        seen = read_status(arguments.kubeconfig, arguments.namespace, arguments.name)
    except ClusterError as error:
        print(f"kubectl moe: {error}", file=sys.stderr)
        return 1
    found = picture(seen, time.time())
    if arguments.output == "json":
        print(data_text(status_data(found, arguments.last), "json"))
    else:
        print(status_text(found, arguments.last, absolute=arguments.absolute))
    return 0
