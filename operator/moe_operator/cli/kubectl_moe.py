"""`kubectl moe`: what a deployment would be, and how it is. Reads only; never writes to the cluster."""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from moe_operator.api.deployment import InvalidSpecError, ModelDeployment, parse
from moe_operator.api.rules import violations
from moe_operator.catalog.accelerators import Catalog, load_catalog
from moe_operator.cli.render import describe_deployment, describe_plan
from moe_operator.controller.kube import MODEL_DEPLOYMENT, NODE, POD, ForbiddenError, KubeError
from moe_operator.controller.revisions import render
from moe_operator.planner.inventory import Inventory, inventory_from_nodes
from moe_operator.planner.plan import Refusal
from moe_operator.planner.planning import plan as make_plan
from moe_operator.runtime.connection import NoConnectionError, context_namespace, load_configuration
from moe_operator.runtime.kube_client import AioKubeClient
from moe_operator.runtime.transport import Transport


class UsageError(Exception):
    """The command cannot be carried out; the message says what to do."""


def parser() -> argparse.ArgumentParser:
    """Every command and option."""
    top = argparse.ArgumentParser(prog="kubectl moe", description=__doc__)
    top.add_argument("--kubeconfig", help="default: $KUBECONFIG, ~/.kube/config")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    plan = commands.add_parser(
        "plan", help="lay out a group and print the engine's arguments, without applying"
    )
    source = plan.add_mutually_exclusive_group(required=True)
    source.add_argument("-f", "--filename", help="file with a ModelDeployment; - for standard input")
    source.add_argument("name", nargs="?", help="a ModelDeployment of the cluster")
    plan.add_argument("-n", "--namespace", help="default: the current context's")
    plan.add_argument("--nodes", help="file with nodes (kubectl get nodes -o yaml) instead of the cluster's")
    status = commands.add_parser("status", help="how a deployment is: conditions, groups, pods, last cause")
    status.add_argument("name")
    status.add_argument("-n", "--namespace", help="default: the current context's")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0; 1 if there is no plan or no such object; 2 for a usage error."""
    arguments = parser().parse_args(argv)
    arguments.namespace = arguments.namespace or context_namespace(arguments.kubeconfig)
    try:
        if arguments.command == "plan":
            return asyncio.run(_plan(arguments))
        return asyncio.run(_status(arguments))
    except BrokenPipeError:
        # Whoever read (`| head`) has enough; what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (UsageError, NoConnectionError, KubeError) as error:
        print(f"kubectl moe: {error}", file=sys.stderr)
        return 2


async def _plan(arguments: argparse.Namespace) -> int:
    obj = _read_manifest(arguments.filename) if arguments.filename else None
    nodes = _read_nodes(arguments.nodes) if arguments.nodes else None
    if obj is None or nodes is None:
        async with _Connected(arguments.kubeconfig) as client:
            if obj is None:
                obj = await client.get(MODEL_DEPLOYMENT, arguments.namespace, arguments.name)
                if obj is None:
                    raise UsageError(f"there is no ModelDeployment {arguments.namespace}/{arguments.name}")
            if nodes is None:
                nodes = await _cluster_nodes(client)
    return print_plan(obj, nodes, load_catalog(), print)


async def _cluster_nodes(client: AioKubeClient) -> Inventory:
    """As the operator sees them: without the right to read nodes the plan says what it assumes."""
    try:
        return inventory_from_nodes(await client.list(NODE))
    except ForbiddenError:
        return Inventory(nodes=None)


def print_plan(obj: dict[str, Any], nodes: Inventory, catalog: Catalog, out: Callable[[str], None]) -> int:
    """The plan of a manifest, or why there is none. Exit code."""
    deployment = _parse(obj)
    broken = violations(deployment)
    for violation in broken:
        out(f"{violation.reason}: {violation.message}")
    if broken:
        return 1
    planned = make_plan(deployment, nodes, catalog)
    if isinstance(planned, Refusal):
        out(f"{planned.reason}: {planned.message}")
        return 1
    out(describe_plan(deployment, render(deployment, planned, catalog)))
    return 0


async def _status(arguments: argparse.Namespace) -> int:
    async with _Connected(arguments.kubeconfig) as client:
        obj = await client.get(MODEL_DEPLOYMENT, arguments.namespace, arguments.name)
        if obj is None:
            raise UsageError(f"there is no ModelDeployment {arguments.namespace}/{arguments.name}")
        deployment = _parse(obj)
        selector = ",".join(f"{k}={v}" for k, v in sorted(deployment.labels().items()))
        pods = await client.list(POD, arguments.namespace, selector)
    print(describe_deployment(deployment, pods))
    return 0


def _parse(obj: dict[str, Any]) -> ModelDeployment:
    meta = obj.setdefault("metadata", {})
    for field, value in (("namespace", "default"), ("uid", "not-applied")):
        meta.setdefault(field, value)
    if "name" not in meta:
        raise UsageError("the ModelDeployment has no metadata.name")
    try:
        return parse(obj)
    except InvalidSpecError as error:
        raise UsageError(f"the spec is not valid: {error}") from error


def _read_yaml(path: str) -> list[Any]:
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text()
        return [document for document in yaml.safe_load_all(text) if document]
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


def _read_manifest(path: str) -> dict[str, Any]:
    found = [d for d in _read_yaml(path) if isinstance(d, dict) and d.get("kind") == "ModelDeployment"]
    if len(found) != 1:
        raise UsageError(f"{path} holds {len(found)} ModelDeployments: one is needed")
    return found[0]


def _read_nodes(path: str) -> Inventory:
    nodes: list[dict[str, Any]] = []
    for document in _read_yaml(path):
        nodes += document.get("items", [document])
    return inventory_from_nodes(nodes)


class _Connected:
    """A client for the length of a `with` block."""

    def __init__(self, kubeconfig: str | None) -> None:
        self._kubeconfig = kubeconfig

    async def __aenter__(self) -> AioKubeClient:
        configuration = await load_configuration(self._kubeconfig)
        self._client = AioKubeClient(Transport(configuration))
        return self._client

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()


if __name__ == "__main__":
    sys.exit(main())
