"""What the status says of weights: from where their download stands, and from what was said of it before. Pure."""

from dataclasses import dataclass

from moe_operator.api import reasons
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.status import WeightsStatus
from moe_operator.api.times import format_time
from moe_operator.controller.conditions import Said
from moe_operator.controller.weights_state import FAILURES, Download, Phase, Progress, WeightsView
from moe_operator.resources.model_source import Scheme, model_source
from moe_operator.resources.revision import Revision
from moe_operator.resources.weights import Kept

LOOK = 10.0
"""Seconds between two looks at what is on its way."""
#: The least seconds between two figures in the status.
_FIGURES = 30.0


@dataclass
class Shown:
    """What the views of one deployment remember. Losing it is harmless."""

    about: str
    """The entry that it is about."""
    progress: Progress | None = None
    shown_at: float | None = None


def view(deployment: ModelDeployment, kept: Kept, found: Download, shown: Shown, now: float) -> WeightsView:
    """Of weights that a cache keeps."""
    old = deployment.status.weights
    same = old is not None and (old.entry, old.cache) == (kept.entry, kept.place)
    outcome, progress = found.outcome, _figures(old if same else None, shown, now)
    status = WeightsStatus(
        source=kept.source,
        revision=kept.revision,
        commit=(outcome.commit if outcome else None)
        or (progress.commit if progress else None)
        or (old.commit if same and old else None),
        cache=kept.place,
        entry=kept.entry,
    )
    on_nodes = kept.claim is None
    if found.phase is Phase.DONE:
        size = (outcome.bytes if outcome else 0) or (old.total_bytes if same and old else 0)
        return _done(kept, found, status, size)
    if progress is not None:
        status = status.model_copy(
            update={
                "bytes": progress.bytes,
                "total_bytes": progress.total_bytes,
                "percent": progress.percent,
            }
        )
    if same and old is not None and (standing := _standing(deployment, found, old, shown)):
        return WeightsView(standing, old, hold=not on_nodes, again=LOOK)
    if found.phase is Phase.RUNNING:
        said = Said(reasons.WEIGHTS_READY, False, reasons.WEIGHTS_DOWNLOADING, _downloading(kept, status))
        return WeightsView(said, status, hold=not on_nodes, again=LOOK)
    if found.reason == reasons.NODES_DOWNLOAD:
        message = f"each node downloads {kept.source} once into {kept.host_path}, before its first engine"
        return WeightsView(Said(reasons.WEIGHTS_READY, True, reasons.NODES_DOWNLOAD, message), status)
    if found.phase is Phase.FAILED and outcome is not None and status.total_bytes:
        status = status.model_copy(update={"bytes": max(status.bytes, outcome.bytes)})
    message = f"{kept.source} for {kept.place}: {found.message}"
    again = LOOK
    if found.phase is Phase.FAILED and found.finished_at is not None:
        again = max(0.5, found.finished_at + found.retry_after - now)
    said = Said(reasons.WEIGHTS_READY, False, found.reason, message)
    return WeightsView(said, status, hold=not on_nodes, again=again)


def unkept(deployment: ModelDeployment, revision: Revision) -> WeightsView:
    """Of weights without a cache."""
    plan = revision.plan
    sizing = plan.sizing
    source = model_source(deployment.spec.model, sizing.repository if sizing else None)
    if not source.remote:
        what = "claim" if source.scheme is Scheme.CLAIM else "image"
        message = f"engines read {what} {source.place}, which is mounted"
        return WeightsView(Said(reasons.WEIGHTS_READY, True, reasons.WEIGHTS_MOUNTED, message))
    size = sizing.checkpoint_bytes if sizing else 0
    amount = f"{size / 1e9:.0f} GB of " if size else ""
    verb = "streams" if source.scheme is Scheme.BUCKET else "downloads"
    pods = f"each of the {plan.pods_per_group} pods of a group" if plan.pods_per_group > 1 else "each pod"
    message = f"{pods} {verb} {amount}{source.url} whenever it starts: set weights.cache to do it once"
    return WeightsView(Said(reasons.WEIGHTS_READY, True, reasons.ENGINE_DOWNLOADS, message))


def _done(kept: Kept, found: Download, status: WeightsStatus, size: int) -> WeightsView:
    since = format_time(found.finished_at) if found.finished_at is not None else None
    done = status.model_copy(
        update={"bytes": size, "total_bytes": size, "percent": 100, "ready_since": since}
    )
    at = f" at {done.commit[:12]}" if done.commit else ""
    amount = f"{size / 1e9:.1f} GB of " if size else ""
    message = f"{amount}{kept.source}{at} are in {kept.place}, downloaded once"
    return WeightsView(Said(reasons.WEIGHTS_READY, True, reasons.WEIGHTS_CACHED, message), done)


def _figures(old: WeightsStatus | None, shown: Shown, now: float) -> Progress | None:
    """The figures to show: those that are shown, until others differ by a percent and half a minute is over."""
    new = shown.progress
    if old is None or old.ready_since is not None or not old.total_bytes:
        shown.shown_at = now if new is not None and new.total_bytes else shown.shown_at
        return new
    standing = Progress(old.bytes, old.total_bytes, old.commit)
    if new is None or new.percent == standing.percent:
        return standing
    if shown.shown_at is not None and now - shown.shown_at < _FIGURES:
        return standing
    shown.shown_at = now
    return new


def _standing(deployment: ModelDeployment, found: Download, old: WeightsStatus, shown: Shown) -> Said | None:
    """The failure that the status shows, while the next try has got no further."""
    if found.reason not in (reasons.WEIGHTS_WAITING, reasons.WEIGHTS_DOWNLOADING):
        return None
    if shown.progress is not None and shown.progress.bytes > old.bytes:
        return None
    for said in deployment.status.conditions:
        if said.type == reasons.WEIGHTS_READY and said.reason in FAILURES:
            return Said(said.type, False, said.reason, said.message)
    return None


def _downloading(kept: Kept, status: WeightsStatus) -> str:
    if not status.total_bytes:
        return f"{kept.source} is looked up, to be downloaded into {kept.place}"
    return (
        f"{status.bytes / 1e9:.1f} of {status.total_bytes / 1e9:.1f} GB of {kept.source} are in {kept.place}"
        f" ({status.percent} %)"
    )
