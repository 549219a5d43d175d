"""Claims that not all pods can mount. Unsaid, a group waits for hours in ContainerCreating; said wrongly, a deployment
that works is held up."""

from typing import Any

import pytest

from factories.deployments import group_plan, model_deployment, revision_of
from moe_operator.api import reasons
from moe_operator.catalog.operator_config import read_config
from moe_operator.controller.claim_modes import Use, mode_fault, mode_note
from moe_operator.resources.weight_claims import Holds, MountedClaim, mounted_claims

CACHE, MODEL = MountedClaim("models", Holds.CACHE), MountedClaim("models", Holds.MODEL)


def claim(*modes: str, volume: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"spec": {"accessModes": list(modes)}, "status": {"accessModes": list(volume)}}


@pytest.mark.parametrize(
    ("modes", "pods", "groups", "most"),
    [
        ("ReadWriteMany", 8, 4, None),
        ("ReadWriteOnce", 1, 1, None),
        ("ReadWriteOncePod", 1, 1, None),
        ("ReadWriteOnce", 2, 1, 0),
        ("ReadWriteOncePod", 2, 1, 0),
        ("ReadWriteOnce", 1, 2, 1),
        ("ReadWriteOncePod", 1, 3, 1),
        ("ReadWriteOnce", 2, 0, None),
    ],
)
def test_as_many_groups_are_made_as_can_mount_it(
    modes: str, pods: int, groups: int, most: int | None
) -> None:
    fault = mode_fault(claim(modes), CACHE, Use(pods, groups))
    assert (fault.most_groups if fault else None) == most
    assert fault is None or fault.reason == reasons.WEIGHTS_CLAIM_NOT_SHARED


def test_the_message_has_modes_numbers_and_what_to_do() -> None:
    fault = mode_fault(claim("ReadWriteOnce"), CACHE, Use(2, 3))
    assert fault is not None
    assert fault.message == (
        "claim models (the cache) is ReadWriteOnce: only pods on one node at a time can mount it, and 3 groups are"
        " wanted of 2 pods each. None is made: name a ReadWriteMany claim, or storageClassName of shared storage, or"
        " hostPath in weights.cache (a claim's modes cannot be changed, so to keep its name delete it and make it"
        " again)"
    )
    other = mode_fault(claim("ReadWriteOncePod"), MODEL, Use(1, 2))
    assert other is not None
    assert "only one pod at a time" in other.message
    assert "2 groups are wanted of 1 pod each. One group is made; for more name a claim" in other.message
    assert "model.source" in other.message


def test_what_the_volume_allows_counts_too() -> None:
    """A claim is bound to a volume that may do more than was asked for; attaching goes by the volume."""
    assert (
        mode_fault(claim("ReadWriteOnce", volume=("ReadWriteOnce", "ReadWriteMany")), CACHE, Use(2, 1))
        is None
    )
    assert (
        mode_fault(claim("ReadWriteOnce", volume=("ReadWriteOnce", "ReadOnlyMany")), CACHE, Use(2, 1)) is None
    )


def test_a_cluster_of_one_node_shares_what_one_node_can_mount() -> None:
    assert mode_fault(claim("ReadWriteOnce"), CACHE, Use(1, 3, one_node=True)) is None
    assert mode_fault(claim("ReadWriteOncePod"), CACHE, Use(1, 3, one_node=True)) is not None


def test_what_runs_is_believed_more_than_modes() -> None:
    """NFS knows no attachment: ReadWriteOnce claims on it serve many nodes, and an upgrade must not hold them up."""
    assert mode_fault(claim("ReadWriteOnce"), CACHE, Use(2, 2, proven=True)) is None


def test_a_cache_must_be_writable_and_what_is_only_read_need_not() -> None:
    fault = mode_fault(claim("ReadOnlyMany"), CACHE, Use(1, 1))
    assert fault is not None
    assert (fault.reason, fault.most_groups) == (reasons.WEIGHTS_BAD_CACHE, 0)
    assert "pvc://models/" in fault.message
    assert mode_fault(claim("ReadOnlyMany"), MODEL, Use(8, 2)) is None


def test_kernels_need_a_claim_that_all_pods_can_write_to() -> None:
    """Else its pods would wait for a volume that the engine could do without."""
    kernels = MountedClaim("kernels", Holds.KERNELS)
    fault = mode_fault(claim("ReadWriteOnce"), kernels, Use(2, 1))
    assert fault is not None
    assert "(compiled kernels)" in fault.message
    assert "engine.compileCache" in fault.message
    read_only = mode_fault(claim("ReadOnlyMany"), kernels, Use(1, 1))
    assert read_only is not None
    assert "nothing can be written" in read_only.message
    assert "engine.compileCache" in read_only.message
    assert "pvc://" not in read_only.message
    assert mode_note(claim("ReadWriteOnce"), kernels) == (
        "claim kernels is ReadWriteOnce: only pods on one node at a time can mount it"
    )


def test_a_claim_that_does_for_now_is_noted() -> None:
    note = mode_note(claim("ReadWriteOncePod"), CACHE)
    assert note == (
        "claim models is ReadWriteOncePod: only one pod at a time can mount it, the one that downloads and the engine's"
        " in turn"
    )
    assert mode_note(claim("ReadWriteMany"), CACHE) is None
    assert mode_note(claim("ReadOnlyMany"), MODEL) is None


def test_all_claims_that_the_operator_mounts_are_found_and_no_other() -> None:
    def names(**spec: Any) -> list[tuple[str, str]]:
        deployment = model_deployment(**spec)
        revision = revision_of(deployment, group_plan(2), read_config(""))
        return [(one.name, one.holds.name) for one in mounted_claims(revision)]

    own = [{"name": "scratch", "persistentVolumeClaim": {"claimName": "scratch"}}]
    lora = [{"name": "a", "source": "pvc://loras/a"}, {"name": "b", "source": "pvc://loras/b"}]
    model = {"name": "org/m", "adapters": lora}
    both = names(model=model, weights={"cache": {"claim": "models"}}, podTemplate={"volumes": own})
    assert both == [("models", "CACHE"), ("loras", "ADAPTERS")]
    assert names(model={"name": "m", "source": "pvc://models/m"}) == [("models", "MODEL")]
    assert names(engine={"compileCache": {"claim": "kernels"}}) == [("kernels", "KERNELS")]
    assert names() == []
