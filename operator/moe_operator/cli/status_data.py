"""What `kubectl moe status -o json` prints: the picture with every time as RFC 3339 and nothing cut. Pure."""

from typing import Any

from moe_operator.api.status import ModelDeploymentStatus
from moe_operator.api.times import format_time
from moe_operator.cli.spec_changes import Change
from moe_operator.cli.status_picture import GroupLine, Picture, RevisionLine
from moe_operator.cli.timeline import Entry


def status_data(picture: Picture, last: int) -> dict[str, Any]:
    """Keys are stable; what could not be read is null, and named in `unread`."""
    deployment, status = picture.deployment, picture.deployment.status
    return {
        "namespace": deployment.namespace,
        "name": deployment.name,
        "model": None if picture.invalid else deployment.spec.model.name,
        "invalidSpec": picture.invalid or None,
        "generation": deployment.generation,
        "observedGeneration": status.observed_generation,
        "revision": status.revision,
        "endpoint": status.endpoint,
        "conditions": [condition.wire() for condition in status.conditions],
        "status": {
            key: value
            for key, value in _wire(status).items()
            if key
            in (
                "plan",
                "groups",
                "throughput",
                "latency",
                "hbm",
                "cost",
                "scaling",
                "weights",
                "coldStart",
                "recovery",
                "provenance",
            )
        },
        "groups": None if picture.groups is None else [_group(one) for one in picture.groups],
        "revisions": None if picture.revisions is None else [revision_data(one) for one in picture.revisions],
        "waitsFor": list(picture.waits),
        "events": [_entry(one) for one in picture.timeline[-last:]] if last else [],
        "unread": list(picture.unread),
    }


def _wire(status: ModelDeploymentStatus) -> dict[str, Any]:
    """Without the ledger, which is for the operator alone."""
    found = status.wire()
    found.get("cost", {}).pop("ledger", None)
    return found


def _group(group: GroupLine) -> dict[str, Any]:
    return {
        "name": group.name,
        "revision": group.revision,
        "state": group.state,
        "podsReady": group.ready,
        "pods": group.size,
        "podsWithTraffic": group.traffic,
        "restarts": group.restarts,
        "nodes": list(group.nodes),
        "domain": group.domain,
        "created": format_time(group.created),
        "drainingSince": None if group.draining_since is None else format_time(group.draining_since),
        "waitsFor": group.waits_for,
    }


def revision_data(line: RevisionLine) -> dict[str, Any]:
    """One revision, with all that changed."""
    return {
        "name": line.kept.name,
        "number": line.kept.number,
        "created": format_time(line.kept.created),
        "groups": line.groups,
        "roles": list(line.roles),
        "changes": None if line.changes is None else [_change(one) for one in line.changes],
        "spec": line.kept.written,
    }


def _change(change: Change) -> dict[str, Any]:
    return {"path": change.path, "before": change.before, "after": change.after}


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "time": format_time(entry.at),
        "step": entry.step,
        "reason": entry.reason,
        "message": entry.text,
        "count": entry.count,
        "since": None if entry.since is None else format_time(entry.since),
    }
