"""Which containers of a pod to start next. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from localcluster.kubelet.records import Record, Terminated


@dataclass(frozen=True)
class Steps:
    """``start``: containers that should run and do not (each still subject to its back-off). ``initialized``: all init
    containers are through. ``over``: nothing will ever start again; sidecars are to be stopped."""

    start: tuple[str, ...] = ()
    initialized: bool = False
    over: bool = False


def should_restart(policy: str, end: Terminated) -> bool:
    """Whether a main container that ended so is started again."""
    return policy == "Always" or (policy == "OnFailure" and end.exit_code != 0)


def next_steps(policy: str, records: Sequence[Record], been_initialized: bool) -> Steps:
    """``been_initialized``: the init containers were through before; they never run twice in one sandbox."""
    start: list[str] = []
    if been_initialized:
        start += [record.name for record in records if record.kind == "sidecar" and not record.running]
    else:
        for record in records:
            if record.kind == "main":
                break
            if record.kind == "sidecar":
                if not record.running:
                    start.append(record.name)
                if not record.started:
                    return Steps(start=tuple(start))
                continue
            end = record.finished
            if record.running:
                return Steps(start=tuple(start))
            if end is not None and end.exit_code == 0:
                continue
            if end is not None and policy == "Never":
                return Steps(over=True)
            return Steps(start=(*start, record.name))
    over = True
    for record in records:
        if record.kind != "main":
            continue
        end = record.finished
        if record.running:
            over = False
        elif end is None or should_restart(policy, end):
            over = False
            start.append(record.name)
    return Steps(start=() if over else tuple(start), initialized=True, over=over)
