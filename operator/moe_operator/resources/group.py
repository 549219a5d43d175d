"""One group as one LeaderWorkerSet.

A group is immutable: it is created, labelled and deleted, never applied over, as a change of any field would
restart its pods. So everything here happens once per revision (`render_template`) or once per group
(`build_group`).
"""

import copy
from typing import Any

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.planner.placement import Placement
from moe_operator.resources import affinity
from moe_operator.resources.claims import claim_companions
from moe_operator.resources.metadata import child_metadata
from moe_operator.resources.pod_template import pod_template
from moe_operator.resources.rendering import Rendering
from moe_operator.resources.revision import Revision, new_revision
from moe_operator.resources.weights_fetch import other_entries


def group_name(deployment_name: str, slot: int) -> str:
    """Name of the LeaderWorkerSet in a slot."""
    return f"{deployment_name}-g{slot}"


def parse_slot(deployment_name: str, lws_name: str) -> int | None:
    """The slot of a LeaderWorkerSet of this deployment; None for a name that `group_name` never gives."""
    prefix = f"{deployment_name}-g"
    digits = lws_name.removeprefix(prefix)
    if not lws_name.startswith(prefix) or not digits.isascii() or not digits.isdigit():
        return None
    slot = int(digits)
    return slot if str(slot) == digits else None


def render_template(rendering: Rendering) -> dict[str, Any]:
    """`spec` of the LeaderWorkerSet, for any group of this spec and plan: what a revision keeps.

    LeaderCreated: the leader waits for the workers' ranks before it is ready, so workers must not wait for it
    to be. restartPolicy None: Kubernetes restarts a crashed engine in place, and with it keeps the evidence,
    until the operator has read why it crashed and replaces the group.
    """
    template = pod_template(rendering)
    return {
        "replicas": 1,
        "startupPolicy": "LeaderCreated",
        "leaderWorkerTemplate": {
            "size": rendering.plan.pods_per_group,
            "restartPolicy": "None",
            "leaderTemplate": template,
            "workerTemplate": copy.deepcopy(template),
        },
    }


def render_revision(rendering: Rendering) -> Revision:
    """A new revision of the spec: the one way from a plan to what its groups are made from."""
    template, companions = render_template(rendering), claim_companions(rendering)
    kept = rendering.weights.kept
    return new_revision(rendering.deployment, rendering.plan, template, companions, kept)


def build_group(
    deployment: ModelDeployment,
    revision: Revision,
    slot: int,
    role: str = names.ROLE_SERVE,
    *,
    placement: Placement | None = None,
    verifier: str | None = None,
) -> dict[str, Any]:
    """The LeaderWorkerSet of the group in `slot`: the revision's template with this group's name and place put in.

    `verifier`: the hash of the token by which the operator proves itself to the group's agents.
    """
    name = group_name(deployment.name, slot)
    own = {names.LABEL_GROUP: name, names.LABEL_ROLE: role, names.LABEL_REVISION: revision.name}
    spec = copy.deepcopy(revision.template)
    workers = spec["leaderWorkerTemplate"]
    for kind in ("leaderTemplate", "workerTemplate"):
        template = workers[kind]
        template["metadata"]["labels"].update(own)
        if verifier is not None:
            annotations = template["metadata"].setdefault("annotations", {})
            annotations[names.ANNOTATION_AGENT_VERIFIER] = verifier
        _name_group(template["spec"].get("affinity"), name)
        if placement is not None and placement != Placement():
            affinity.put(template["spec"].setdefault("affinity", {}), placement)
    metadata = child_metadata(deployment, name, own)
    metadata["annotations"] = {
        names.ANNOTATION_RANKS_PER_POD: str(revision.plan.ranks_per_pod),
        **({names.ANNOTATION_GPUS_PER_POD: str(revision.plan.gpus_per_pod)} if revision.plan.claims else {}),
        **_place(placement or Placement()),
    }
    queue = (workers["workerTemplate"]["metadata"].get("annotations") or {}).get(names.ANNOTATION_QUEUE)
    if queue:
        metadata["labels"][names.KUEUE_QUEUE_LABEL] = queue
    if revision.weights is not None:
        metadata["labels"][names.LABEL_WEIGHTS] = revision.weights.entry
        metadata["annotations"] |= other_entries(revision.weights)
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": metadata,
        "spec": spec,
    }


def _place(placement: Placement) -> dict[str, str]:
    """The group's place for people, and for the operator while the group's pods have no nodes yet."""
    found = {}
    if placement.domain is not None:
        found[names.ANNOTATION_DOMAIN] = "=".join(placement.domain)
    if placement.node is not None:
        found[names.ANNOTATION_NODE] = placement.node
    return found


def _name_group(affinity: Any, name: str) -> None:
    """Let selectors on the group's label ask for this group: the template leaves the value open. One that the user
    gave a value stays as it is."""
    if isinstance(affinity, dict):
        labels = affinity.get("matchLabels")
        if isinstance(labels, dict) and labels.get(names.LABEL_GROUP) == "":
            labels[names.LABEL_GROUP] = name
        for value in affinity.values():
            _name_group(value, name)
    elif isinstance(affinity, list):
        for value in affinity:
            _name_group(value, name)
