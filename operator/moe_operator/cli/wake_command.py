"""`kubectl moe wake`: has at least one group of a deployment for a while, and says from when it serves."""

import argparse
import sys
import time
from contextlib import suppress

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.times import format_time, read_rfc3339
from moe_operator.autoscaler.cold_start import PRIOR
from moe_operator.cli.cluster import read_status, send_patch
from moe_operator.cli.errors import ClusterError, UsageError
from moe_operator.cli.manifest import deployment_of
from moe_operator.cli.undo import MANAGER
from moe_operator.cli.units import span

#: Seconds for which one may be woken.
_LEAST, _MOST = 60.0, 365 * 86400.0


def run(arguments: argparse.Namespace) -> int:
    """Exit 0; 1 where there is no such deployment, no answer, or no group can come. Raises UsageError."""
    try:
        return _wake(arguments)
    except ClusterError as error:
        print(f"kubectl moe: {error}", file=sys.stderr)
        return 1


def _wake(arguments: argparse.Namespace) -> int:
    if not _LEAST <= arguments.seconds <= _MOST:
        raise UsageError("--for must be between 1m and 8760h; for good, set scaling.minGroups")
    obj = read_status(arguments.kubeconfig, arguments.namespace, arguments.name).obj
    deployment, now = deployment_of(obj), time.time()
    if deployment.spec.scaling.max_groups == 0:
        raise ClusterError("scaling.maxGroups is 0, which allows no group: raise it")
    until, before = now + arguments.seconds, _asked(deployment)
    if until > before:
        annotations = {names.ANNOTATION_WAKE_UNTIL: format_time(until)}
        send_patch(arguments.kubeconfig, obj, {"metadata": {"annotations": annotations}}, MANAGER)
    end = f"until {format_time(max(until, before))}"
    longer = "" if until > before else ", as it was asked before for longer"
    print(f"{deployment.namespace}/{deployment.name}: at least one group {end}{longer}")
    print(f"  {serves(deployment, now)}")
    remove = (
        f"kubectl annotate mdep {deployment.name} -n {deployment.namespace} {names.ANNOTATION_WAKE_UNTIL}-"
    )
    print(f"  to end it sooner: {remove}")
    return 0


def _asked(deployment: ModelDeployment) -> float:
    """Until when it is awake already; what cannot be read is written over."""
    with suppress(ValueError):
        return read_rfc3339(deployment.wake_until or "")
    return 0.0


def serves(deployment: ModelDeployment, now: float) -> str:
    """From when, for people."""
    status = deployment.status
    if ready := status.groups.ready:
        return f"it serves: {ready} of {status.groups.desired} groups"
    last = status.cold_start
    took = float(last.total) if last is not None else PRIOR
    known = (
        f"its last start took {span(took)}"
        if last is not None
        else f"no start was seen yet; {span(took)} is usual"
    )
    return f"it serves from about {format_time(now + took)}: {known}"
