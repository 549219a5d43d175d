"""The ModelDeployment object as the operator handles it: identity, parsed spec and last written status."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from moe_operator.api import names
from moe_operator.api.spec import ModelDeploymentSpec
from moe_operator.api.status import ModelDeploymentStatus


class InvalidSpecError(ValueError):
    """The stored spec cannot be read; the message names every field at fault."""


@dataclass(frozen=True)
class ModelDeployment:
    """One ModelDeployment. `spec` is valid field by field; the planner and `api.rules` judge the whole."""

    namespace: str
    name: str
    uid: str
    generation: int
    spec: ModelDeploymentSpec
    status: ModelDeploymentStatus
    wake_until: str | None = None
    """The annotation of that name as it was written; None: absent."""

    @property
    def key(self) -> tuple[str, str]:
        return (self.namespace, self.name)

    def owner_reference(self) -> dict[str, Any]:
        """The controller reference that every child carries."""
        return {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }

    def labels(self) -> dict[str, str]:
        """The labels that every child carries."""
        return {
            "app.kubernetes.io/name": "vllm",
            "app.kubernetes.io/instance": self.name,
            names.LABEL_MANAGED_BY: names.MANAGED_BY,
            names.LABEL_DEPLOYMENT: self.name,
        }


def without_spec(obj: Mapping[str, Any]) -> ModelDeployment:
    """The same where the spec cannot be read: identity and status, with a spec that asks for next to nothing."""
    return parse({**obj, "spec": {"model": {"name": "invalid"}, "hardware": {"accelerator": "cpu"}}})


def parse(obj: Mapping[str, Any]) -> ModelDeployment:
    """Read an API object.

    Raises InvalidSpecError when the spec does not validate (stored before a rule existed, for example).
    An unreadable status counts as empty: it is derived and written anew.
    """
    meta = obj["metadata"]
    try:
        spec = ModelDeploymentSpec.model_validate(obj.get("spec") or {})
    except ValidationError as error:
        faults = "; ".join(f"spec.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InvalidSpecError(faults) from error
    try:
        status = ModelDeploymentStatus.model_validate(obj.get("status") or {})
    except ValidationError:
        status = ModelDeploymentStatus()
    return ModelDeployment(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        generation=meta.get("generation", 1),
        spec=spec,
        status=status,
        wake_until=(meta.get("annotations") or {}).get(names.ANNOTATION_WAKE_UNTIL),
    )
