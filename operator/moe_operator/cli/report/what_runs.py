"""The model, its weights and the engines that a deployment runs, for its record. Pure."""

import re
from collections.abc import Iterable, Iterator

from moe_operator.api import names
from moe_operator.catalog.code_loading import in_arguments, in_environment
from moe_operator.catalog.images import parse_image
from moe_operator.cli.report.data import UNKNOWN, EngineRecord, ModelRecord, WeightsRecord
from moe_operator.cli.report.reading import Obj
from moe_operator.cli.report.subject import Subject

_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"@(sha256:[0-9a-f]{64})")
#: Flags of vLLM that write prompts or answers into its log, or send traces of requests away.
_LOGGING = frozenset({"enable-log-requests", "enable-log-outputs", "otlp-traces-endpoint"})


def model_of(subject: Subject) -> ModelRecord:
    """By the status; of a deployment without a plan by the spec, as far as it says it."""
    spec, runs = subject.deployment.spec.model, subject.status.provenance
    served = spec.served_name if spec.served_name != spec.name else None
    if runs is None:
        return ModelRecord(
            name=UNKNOWN if subject.invalid else spec.name,
            served_name=served,
            licence=UNKNOWN,
            publisher=UNKNOWN,
            source=spec.source or UNKNOWN,
            revision=spec.revision,
            adapters=[one.source for one in spec.adapters],
            notes=[
                "the operator has not said what it runs: there is no plan, or its version does not say it"
            ],
        )
    notes = []
    if runs.licence == UNKNOWN:
        notes.append("the catalogue has no licence of this model: look at its publisher's page")
    if runs.commit is None and runs.source.startswith("hf://"):
        notes.append(
            "the commit is not known: engines load what the branch or tag points to when they start; name a commit"
            " in model.revision, or have the weights in a cache"
        )
    if runs.adapters:
        notes.append("commits of adapters are not known: the status does not have them")
    if subject.status.groups.updated < subject.status.groups.ready:
        notes.append("some groups still serve an earlier revision")
    return ModelRecord(
        name=runs.model,
        served_name=served,
        licence=runs.licence,
        publisher=runs.publisher,
        source=runs.source,
        revision=runs.revision,
        commit=runs.commit,
        precision=runs.precision,
        adapters=list(runs.adapters),
        policy_rule=runs.policy_rule,
        notes=notes,
    )


def weights_of(subject: Subject) -> WeightsRecord:
    """Where they are kept, and what vouches for them."""
    kept, runs = subject.status.weights, subject.status.provenance
    source = runs.source if runs else kept.source if kept else ""
    commit = (kept.commit if kept else None) or (runs.commit if runs else None)
    found = _DIGEST.search(source)
    digest = found.group(1) if found else None
    if digest is None and commit and _COMMIT.fullmatch(commit):
        digest = f"git:{commit}"
    if kept is None:
        return WeightsRecord(digest=digest, verification=_unkept(source, digest))
    complete = kept.ready_since
    checked = (
        "every file was compared with the SHA-256 or git hash that the source names"
        if kept.source.startswith("hf://")
        else "every object was compared with the checksum that the store keeps of it; of objects without one, the"
        " size alone"
    )
    return WeightsRecord(
        cache=kept.cache,
        entry=kept.entry,
        bytes=kept.total_bytes or None,
        complete_since=complete,
        digest=digest,
        verification=f"{checked}, as it was downloaded; SHA-256 of each file are in state.json of the entry, which"
        " this record has not read"
        if complete
        else "not all of it is there yet",
    )


def _unkept(source: str, digest: str | None) -> str:
    """What vouches for weights that no cache of the operator's keeps."""
    if source.startswith("oci://"):
        return (
            "nodes verify the image by its digest when they pull it"
            if digest
            else "the image is named by a tag, which may move: name it by digest"
        )
    if source.startswith("pvc://"):
        return "not verified by the operator: whoever may write to the claim decides what is loaded"
    if source.startswith(("hf://", "s3://")):
        return "not verified by the operator: engines read the source themselves"
    return "nothing is known of it"


def engine_of(subject: Subject) -> EngineRecord:
    """The image, what of it runs, and which arguments an auditor asks for."""
    plan, engine = subject.status.plan, subject.deployment.spec.engine
    image = plan.image if plan else None
    version = parse_image(image).version if image else None
    loads = {f"{written} ({does})" for _, written, does in in_arguments(engine.args)}
    loads |= {f"{name} ({does})" for name, does in in_environment(engine.env)}
    return EngineRecord(
        image=image,
        version=".".join(map(str, version)) if version else None,
        running=None if subject.pods is None else sorted(set(_images(subject.pods))),
        revision=subject.status.revision,
        pod_security=subject.status.provenance.pod_security if subject.status.provenance else None,
        code_loading=sorted(loads),
        logging=[
            word
            for word in subject.status.engine_arguments
            if word.partition("=")[0].removeprefix("--") in _LOGGING
        ],
        arguments=list(subject.status.engine_arguments),
    )


def _images(pods: Iterable[Obj]) -> Iterator[str]:
    for pod in pods:
        for one in (pod.get("status") or {}).get("containerStatuses") or ():
            if one.get("name") == names.ENGINE_CONTAINER and one.get("imageID"):
                yield str(one["imageID"])
