"""Writes as the API server counted them: the local cluster's audit log."""

import json
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Write:
    """One write that the API server answered."""

    user: str
    verb: str
    resource: str
    name: str
    code: int


def audit_log() -> Path:
    """The log of the cluster that KUBECONFIG names."""
    return Path(os.environ["KUBECONFIG"]).parent / "logs" / "audit.jsonl"


def writes_since(offset: int, service_account: str) -> list[Write]:
    """Writes by a ServiceAccount (`namespace:name`) from a byte offset of the log on; see `position`."""
    found = []
    with audit_log().open("rb") as log:
        log.seek(offset)
        for line in log:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # the line is being written
            if event["user"]["username"] != f"system:serviceaccount:{service_account}":
                continue
            target = event.get("objectRef") or {}
            found.append(
                Write(
                    user=event["user"]["username"],
                    verb=event["verb"],
                    resource="/".join(filter(None, (target.get("resource"), target.get("subresource")))),
                    name=target.get("name", ""),
                    code=(event.get("responseStatus") or {}).get("code", 0),
                )
            )
    return found


def position() -> int:
    """The log's present end."""
    return audit_log().stat().st_size
