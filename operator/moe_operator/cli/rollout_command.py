"""`kubectl moe rollout`: the history of a deployment's revisions, the wait for one, and the way back to one."""

import argparse
import asyncio
import json
import shlex
import sys
import time
from collections.abc import Awaitable, Callable

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.cli.cluster import Obj, read_status, send_patch, watch_deployment
from moe_operator.cli.data_text import data_text
from moe_operator.cli.errors import ClusterError
from moe_operator.cli.manifest import deployment_of
from moe_operator.cli.revision_history import history
from moe_operator.cli.rollout_progress import follow
from moe_operator.cli.rollout_text import history_text, owners_text
from moe_operator.cli.spec_changes import change_text
from moe_operator.cli.status_data import revision_data
from moe_operator.cli.status_picture import Picture, picture
from moe_operator.cli.undo import MANAGER, Undo, owners, undo


def run(arguments: argparse.Namespace) -> int:
    """Exit 0; 1 where there is no such deployment, no answer, or the rollout does not succeed. Raises UsageError."""
    try:
        return {"history": _history, "status": _status, "undo": _undo}[arguments.rollout](arguments)
    except ClusterError as error:
        print(f"kubectl moe: {error}", file=sys.stderr)
        return 1


def _history(arguments: argparse.Namespace) -> int:
    found = _look(arguments)
    if arguments.output == "json":
        print(data_text([revision_data(one) for one in found.revisions or ()], "json"))
    else:
        print(history_text(found, absolute=arguments.absolute))
    return 0


def _look(arguments: argparse.Namespace) -> Picture:
    """Raises ClusterError where revisions cannot be read: without them there is nothing to say."""
    seen = read_status(arguments.kubeconfig, arguments.namespace, arguments.name)
    if seen.revisions is None:
        raise ClusterError("; ".join(seen.unread))
    return picture(seen, time.time())


def _status(arguments: argparse.Namespace) -> int:
    async def watch(look: Callable[[], Awaitable[Obj]]) -> bool:
        async def deployment() -> ModelDeployment:
            return deployment_of(await look())

        return await follow(
            deployment,
            patience=arguments.timeout,
            now=time.monotonic,
            sleep=asyncio.sleep,
            say=lambda text: print(text, flush=True),
        )

    well = watch_deployment(arguments.kubeconfig, arguments.namespace, arguments.name, watch)
    return 0 if well else 1


def _undo(arguments: argparse.Namespace) -> int:
    seen = read_status(arguments.kubeconfig, arguments.namespace, arguments.name)
    if seen.revisions is None:
        raise ClusterError("; ".join(seen.unread))
    deployment = deployment_of(seen.obj)
    found = undo(deployment, history(seen.revisions, deployment), arguments.to_revision)
    target = f"revision {found.target.number} ({found.target.name})"
    if not found.patch:
        _note(f"the spec is that of {target} already")
        return 0
    warnings = owners_text(owners(seen.obj["metadata"].get("managedFields") or (), found.patch))
    if not arguments.apply:
        print(json.dumps(found.patch, indent=2))
    _note(f"back to {target}:", *(f"  {change_text(one)}" for one in found.changes), *warnings)
    if arguments.apply:
        send_patch(arguments.kubeconfig, seen.obj, found.patch, MANAGER)
        _note(f"applied; kubectl moe rollout status {deployment.name} -n {deployment.namespace} waits for it")
    else:
        _note("to apply it, run this again with --apply, or:", f"  {_command(deployment, found)}")
    return 0


def _command(deployment: ModelDeployment, found: Undo) -> str:
    patch = json.dumps(found.patch, separators=(",", ":"))
    where = (names.KIND.lower(), deployment.name, "-n", deployment.namespace)
    return shlex.join(["kubectl", "patch", *where, "--type=merge", "-p", patch])


def _note(*lines: str) -> None:
    """For people: the patch alone goes to standard output."""
    print("\n".join(lines), file=sys.stderr)
