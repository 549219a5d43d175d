"""Dynamic resource allocation in the in-memory cluster: claims of pods, and NVIDIA's compute-domain controller.

Selectors are not evaluated: tests/cluster/with_dra.py lets the real scheduler do that.
"""

import contextlib
from collections.abc import Iterable

from factories.dra import channel_template
from fakecluster.api_server import Event
from fakecluster.controller import Controller, Key
from fakecluster.objects import is_deleting
from moe_operator.controller.kube import (
    COMPUTE_DOMAIN,
    POD,
    RESOURCE_CLAIM,
    RESOURCE_CLAIM_TEMPLATE,
    ConflictError,
    Obj,
)


class ClaimController(Controller):
    """Makes a pod's claims of their templates, as the controller manager does."""

    latency = 0.05

    def keys(self, event: Event) -> Iterable[Key]:
        if event.kind in (POD, RESOURCE_CLAIM_TEMPLATE) and event.type != "DELETED":
            yield ("", "claims")

    def sync(self, key: Key) -> None:
        for pod in self.server.list(POD):
            wanted = pod["spec"].get("resourceClaims") or []
            made = (pod.get("status") or {}).get("resourceClaimStatuses") or []
            if is_deleting(pod) or len(made) == len(wanted):
                continue
            statuses = [status for claim in wanted if (status := self._claim(pod, claim)) is not None]
            if len(statuses) > len(made):
                self.server.set_status(POD, pod, {"resourceClaimStatuses": statuses}, self.name)

    def _claim(self, pod: Obj, claim: Obj) -> Obj | None:
        meta = pod["metadata"]
        template = self.server.get(
            RESOURCE_CLAIM_TEMPLATE, meta["namespace"], claim["resourceClaimTemplateName"]
        )
        if template is None:
            return None
        name = f"{meta['name']}-{claim['name']}-{meta['uid'][-4:]}"
        owner = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
        obj = {
            "apiVersion": RESOURCE_CLAIM.api_version,
            "kind": RESOURCE_CLAIM.kind,
            "metadata": {
                "name": name,
                "namespace": meta["namespace"],
                "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
            },
            "spec": template["spec"]["spec"],
        }
        with contextlib.suppress(ConflictError):
            self.server.create(RESOURCE_CLAIM, obj, self.name)
        return {"name": claim["name"], "resourceClaimName": name}


class ComputeDomainController(Controller):
    """Makes the channel's template of a ComputeDomain, as NVIDIA's controller does, and takes it away with it."""

    latency = 0.05
    runs = True
    """False: the CRDs are there and the controller is not."""

    def keys(self, event: Event) -> Iterable[Key]:
        if event.kind == COMPUTE_DOMAIN:
            yield (event.obj["metadata"]["namespace"], event.obj["metadata"]["name"])

    def sync(self, key: Key) -> None:
        if COMPUTE_DOMAIN in self.server.absent or not self.runs:
            return
        domain = self.server.get(COMPUTE_DOMAIN, *key)
        if domain is None or is_deleting(domain):
            return
        template = channel_template(domain)
        meta = domain["metadata"]
        template["metadata"]["ownerReferences"] = [
            {
                "apiVersion": COMPUTE_DOMAIN.api_version,
                "kind": COMPUTE_DOMAIN.kind,
                "name": meta["name"],
                "uid": meta["uid"],
                "controller": True,
            }
        ]
        with contextlib.suppress(ConflictError):
            self.server.create(RESOURCE_CLAIM_TEMPLATE, template, self.name)
