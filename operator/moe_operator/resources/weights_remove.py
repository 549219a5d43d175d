"""The Job that removes folders from the cache in a shared claim, for a deployment that goes and wants that."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.catalog.accelerators import AcceleratorProfile
from moe_operator.catalog.weights_layout import EXIT_CODES, Reason
from moe_operator.catalog.weights_site import WeightsSite
from moe_operator.resources.pod_parts import Object
from moe_operator.resources.weights import CACHE_PATH, VOLUME
from moe_operator.resources.weights_job import (
    FINAL_EXIT_CODES,
    cache_job,
    job_labels,
    locked,
    program_container,
)

DEADLINE = 300
"""Seconds that a deletion waits for the removal, from when its groups are gone."""
#: Deleting a file costs neither processor nor memory.
_REQUESTS = {"cpu": "50m", "memory": "128Mi"}
#: What another process works on it wants: a second try would take away what that has downloaded meanwhile.
_FINAL = tuple(sorted({*FINAL_EXIT_CODES, EXIT_CODES[Reason.BUSY]}))


def removal_name(deployment: ModelDeployment, claim: str) -> str:
    """One for each claim that this very deployment kept weights in."""
    about = f"{deployment.uid}\0{claim}"
    return f"{VOLUME}-remove-{hashlib.sha256(about.encode()).hexdigest()[:10]}"


def removed_entries(obj: Mapping[str, Any]) -> tuple[str, ...]:
    """The folders that a Job, or a pod of it, removes; none for any other."""
    text = (obj["metadata"].get("annotations") or {}).get(names.ANNOTATION_REMOVES, "")
    return tuple(entry for entry in text.split(",") if entry)


def build_removal(
    deployment: ModelDeployment,
    claim: str,
    entries: Sequence[str],
    site: WeightsSite,
    profile: AcceleratorProfile | None,
) -> Object:
    """The Job. `profile`: of the accelerator that the weights were for, as far as it is still known."""
    arguments = ["weights", "remove", "--cache", CACHE_PATH]
    for entry in entries:
        arguments += ["--entry", entry]
    container = program_container(
        site, arguments, (), securityContext=locked(), resources={"requests": _REQUESTS}
    )
    annotations = {names.ANNOTATION_REMOVES: ",".join(entries)}
    return cache_job(
        deployment,
        removal_name(deployment, claim),
        claim,
        container,
        site,
        profile,
        labels=job_labels("weights-removal"),
        annotations=annotations,
        pod_annotations=annotations,
        final=_FINAL,
        deadline=DEADLINE,
    )
