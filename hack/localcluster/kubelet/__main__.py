"""``python -m localcluster.kubelet``: run inside a cluster's namespaces."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from localcluster.kubelet.images import ImageTableError
from localcluster.kubelet.nodespec import NodesError
from localcluster.kubelet.service import Kubelet, KubeletError, Options


def parse(argv: list[str]) -> Options:
    """The options of a command line."""
    parser = argparse.ArgumentParser(prog="localcluster.kubelet", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True, help="administrator's kubeconfig")
    parser.add_argument("--nodes", type=Path, required=True, help="YAML list of nodes to play")
    parser.add_argument("--images", type=Path, required=True, help="YAML table of images and local commands")
    parser.add_argument("--root", type=Path, required=True, help="directory for pods, ready and control.sock")
    parser.add_argument("--ca-cert", type=Path, required=True, help="authority of client certificates")
    parser.add_argument("--serving-cert", type=Path, required=True)
    parser.add_argument("--serving-key", type=Path, required=True)
    parser.add_argument("--dns", required=True, help="address of the cluster's DNS server")
    parser.add_argument(
        "--pod-cidr", required=True, help="range of pod addresses, all local: a /24 for each node"
    )
    parser.add_argument("--cluster-domain", default="cluster.local")
    parser.add_argument(
        "--crash-backoff", default="10,300", help="first and longest restart delay in seconds"
    )
    parser.add_argument(
        "--no-storage", action="store_true", help="leave PersistentVolumeClaims to somebody else"
    )
    given = parser.parse_args(argv)
    try:
        first, longest = (float(part) for part in given.crash_backoff.split(","))
    except ValueError:
        parser.error(
            f"--crash-backoff must be two numbers of seconds such as 10,300, not {given.crash_backoff!r}"
        )
    return Options(
        kubeconfig=given.kubeconfig,
        nodes=given.nodes,
        images=given.images,
        root=given.root,
        ca_cert=given.ca_cert,
        serving_cert=given.serving_cert,
        serving_key=given.serving_key,
        dns=given.dns,
        pod_cidr=given.pod_cidr,
        cluster_domain=given.cluster_domain,
        crash_backoff=(first, longest),
        storage=not given.no_storage,
    )


def main(argv: list[str]) -> int:
    """Entry point. Returns 1, with a message, when the kubelet cannot run."""
    try:
        asyncio.run(Kubelet(parse(argv)).run())
    except (KubeletError, NodesError, ImageTableError, OSError) as error:
        print(f"kubelet: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
