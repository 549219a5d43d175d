"""What fills a cache: one Job per shared claim and model, or a container before the engine for a folder of the node.

Both run the operator's own program, which holds a lock per model: whoever comes second waits, and finds it done.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.catalog.accelerators import AcceleratorProfile
from moe_operator.catalog.weights_site import WeightsSite
from moe_operator.resources.model_source import Scheme
from moe_operator.resources.pod_parts import Object, PodParts, together
from moe_operator.resources.rendering import Rendering
from moe_operator.resources.weights import CACHE_PATH, VOLUME, Kept, cache_size, credentials
from moe_operator.resources.weights_job import cache_job, job_labels, locked, program_container

#: A download keeps the network busy, not the processor; checksums take one core for each stream.
_REQUESTS = {"cpu": "500m", "memory": "512Mi"}


def weights_parts(rendering: Rendering) -> PodParts:
    """What the engines' pods need of the weights; on a cache of the node, what fills it first."""
    weights, site = rendering.weights, rendering.config.weights
    if weights.kept is None or weights.kept.host_path is None:
        return weights.parts()
    # The kubelet makes the folder as root's.
    container = _container(weights.kept, site, (), securityContext=locked(runAsUser=0))
    why = "downloads the weights, unless the node has them: its first pod does, the others wait for it"
    first = PodParts(init_containers=(container,), reasons={names.FETCH_CONTAINER: why})
    return together((weights.parts(), first))


def job_name(kept: Kept) -> str:
    """The same for all that want the same model and adapters from the same sources in the same claim, with the same
    Secret."""
    about = "\0".join((kept.claim or "", kept.entry, kept.secret or "", *kept.adapters))
    return f"{VOLUME}-{hashlib.sha256(about.encode()).hexdigest()[:10]}"


def other_entries(kept: Kept) -> dict[str, str]:
    """The annotation of what uses more than one folder of a cache: the label has room for the model's alone."""
    others = kept.entries[1:]
    return {names.ANNOTATION_ENTRIES: ",".join(others)} if others else {}


def entries_of(obj: Mapping[str, Any]) -> tuple[str, ...]:
    """The folders of a cache that a Job or a group uses."""
    meta = obj["metadata"]
    label = (meta.get("labels") or {}).get(names.LABEL_WEIGHTS, "")
    others = (meta.get("annotations") or {}).get(names.ANNOTATION_ENTRIES, "")
    return tuple(entry for entry in (label, *others.split(",")) if entry)


def build_job(
    deployment: ModelDeployment,
    kept: Kept,
    site: WeightsSite,
    profile: AcceleratorProfile,
    *,
    in_use: Iterable[str],
    annotations: Mapping[str, str],
) -> Object:
    """The Job that downloads into a shared claim. `in_use`: folders of the cache that must stay when room is made."""
    assert kept.claim is not None
    container = _container(kept, site, in_use, securityContext=locked(), resources={"requests": _REQUESTS})
    return cache_job(
        deployment,
        job_name(kept),
        kept.claim,
        container,
        site,
        profile,
        labels={**job_labels("weights"), names.LABEL_WEIGHTS: kept.entry},
        annotations={**other_entries(kept), **annotations},
    )


def build_download(rendering: Rendering) -> list[Object]:
    """What is made for the weights of a spec beside its groups, if nothing is there yet: a claim, if the operator
    makes it, and the Job."""
    kept, deployment, site = rendering.weights.kept, rendering.deployment, rendering.config.weights
    if kept is None or kept.claim is None:
        return []
    size = cache_size(deployment.spec, site, kept.storage_class) if kept.storage_class else None
    claim = [build_claim(deployment, kept, size)] if size else []
    return [*claim, build_job(deployment, kept, site, rendering.profile, in_use=(), annotations={})]


def build_claim(deployment: ModelDeployment, kept: Kept, size: str) -> Object:
    """The operator's claim of a class. Without an owner: weights outlive the deployments that wanted them."""
    assert kept.claim is not None
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": kept.claim,
            "namespace": deployment.namespace,
            "labels": {"app.kubernetes.io/name": VOLUME, names.LABEL_MANAGED_BY: names.MANAGED_BY},
        },
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": kept.storage_class,
            "resources": {"requests": {"storage": size}},
        },
    }


def _container(kept: Kept, site: WeightsSite, in_use: Iterable[str], **more: Any) -> Object:
    arguments = ["weights", "fetch", "--source", kept.source, "--cache", CACHE_PATH]
    if kept.revision:
        arguments += ["--revision", kept.revision]
    scheme = Scheme(kept.source.partition("://")[0])
    if endpoint := site.endpoint if scheme is Scheme.HUB else site.s3_endpoint:
        arguments += ["--endpoint", endpoint]
    for adapter in kept.adapters:
        arguments += ["--adapter", adapter]
    if kept.adapters and site.endpoint:
        arguments += ["--adapter-endpoint", site.endpoint]
    for entry in sorted({*in_use, *kept.entries}):
        arguments += ["--in-use", entry]
    env = credentials(dict.fromkeys((scheme, *([Scheme.HUB] if kept.adapters else []))), kept.secret)
    return program_container(site, arguments, env, **more)


def read_message(text: str) -> dict[str, Any] | None:
    """The program's JSON: the last line of a log or a termination message that is an object; None without one."""
    for line in reversed(text.splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    return None
