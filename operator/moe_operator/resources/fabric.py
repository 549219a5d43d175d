"""What the pods of a group need to reach each other: environment, adapters, capabilities, and flags of the engine."""

from collections.abc import Iterator, Mapping
from typing import Any

from moe_operator.catalog.fabric import Capability, Sends
from moe_operator.catalog.fabrics import Backend, FabricProfile
from moe_operator.catalog.policy import PodAddition
from moe_operator.planner.plan import Transport
from moe_operator.resources.pod_parts import PodParts
from moe_operator.resources.rendering import Rendering

#: DeepEP's low-latency kernels want so many entries in an adapter's queue: two for each token of a step, and two
#: more. NVSHMEM's default is 1024.
_QUEUE_DEPTH = "NVSHMEM_QP_DEPTH"
_USUAL_DEPTH = 1024
#: Names of volumes: of the nodes' folders and of their devices. `podTemplate` may not use names that begin so.
_FOLDER, _DEVICE = "moe-fabric-", "moe-device-"
_LOW_LATENCY = "deepep_low_latency"
#: Tokens of a step from which two halves of it overlap: vLLM's own default for prompts (0.32), for answers the 32 that
#: llm-d's wide groups are run with.
_DECODE_THRESHOLD = 32


def fabric_parts(rendering: Rendering) -> PodParts:
    """Of the plan's transport; nothing for a group that has none."""
    transport = rendering.plan.transport
    if transport is None:
        return PodParts()
    profile = fabric_of(rendering, transport)
    return PodParts(
        env=tuple(
            {"name": name, "value": value} for name, value in _environment(rendering, transport, profile)
        ),
        limits={
            **({transport.rdma_resource: str(transport.rdma_count)} if transport.rdma_resource else {}),
            **dict(profile.huge_pages),
        },
        volumes=tuple(_volumes(profile)),
        mounts=tuple(_mounts(profile)),
        annotations={one.name: one.value for one in profile.pod_annotations},
        privileged=bool(profile.host_devices),
        capabilities=tuple(one.name for one in capabilities(rendering, transport, profile)),
        reasons=_reasons(rendering, transport, profile),
    )


def _reasons(rendering: Rendering, transport: Transport, profile: FabricProfile) -> dict[str, str]:
    found = {one.name: f"{one.reason} ({one.reads or 'the site'})" for one in profile.env}
    found |= {one.name: one.reason for one in capabilities(rendering, transport, profile)}
    found |= dict.fromkeys((name for name, _ in profile.huge_pages), f"pages of {profile.name}'s adapters")
    found |= {one.name: one.reason for one in profile.pod_annotations}
    found |= {one.mount_path: one.reason for one in profile.host_paths}
    found |= {one.path: one.reason for one in profile.host_devices}
    found[_QUEUE_DEPTH] = "two entries for each token of a step and two more, which DeepEP's kernels assert"
    if transport.rdma_resource is not None:
        found[transport.rdma_resource] = f"the node's adapters: {profile.about}"
    return found


def _volumes(profile: FabricProfile) -> Iterator[dict[str, Any]]:
    """Folders must be there: of one that is missing the kubelet would make an empty one, and NCCL would go over TCP."""
    for number, folder in enumerate(profile.host_paths):
        yield {"name": f"{_FOLDER}{number}", "hostPath": {"path": folder.path, "type": "Directory"}}
    for number, device in enumerate(profile.host_devices):
        yield {"name": f"{_DEVICE}{number}", "hostPath": {"path": device.path}}


def _mounts(profile: FabricProfile) -> Iterator[dict[str, Any]]:
    for number, folder in enumerate(profile.host_paths):
        yield {"name": f"{_FOLDER}{number}", "mountPath": folder.mount_path, "readOnly": True}
    for number, device in enumerate(profile.host_devices):
        yield {"name": f"{_DEVICE}{number}", "mountPath": device.path}


def fabric_additions(template: Mapping[str, Any]) -> tuple[tuple[PodAddition, str], ...]:
    """What the fabric of a kept template gives its pods beyond what ordinary ones have, for the policy."""
    pod = template["leaderWorkerTemplate"]["workerTemplate"]["spec"]
    found: list[tuple[PodAddition, str]] = []
    for volume in pod.get("volumes") or ():
        path = (volume.get("hostPath") or {}).get("path")
        if volume["name"].startswith(_FOLDER):
            found.append((PodAddition.HOST_PATH, f"the fabric mounts {path} of its nodes"))
        elif volume["name"].startswith(_DEVICE):
            found.append(
                (PodAddition.PRIVILEGED, f"the fabric opens {path} of its nodes, by privileged engines")
            )
    return tuple(found)


def fabric_of(rendering: Rendering, transport: Transport) -> FabricProfile:
    """KeyError if the catalogue that it was planned with is not this one."""
    found = rendering.config.catalog.fabrics.fabric(transport.fabric)
    if found is None:
        raise KeyError(f"the catalogue has no fabric {transport.fabric}")
    return found


def capabilities(rendering: Rendering, transport: Transport, profile: FabricProfile) -> Iterator[Capability]:
    """Of the fabric and of the all-to-all over it, those that this kind of node needs."""
    backend = _backend(rendering, transport)
    own = backend.capabilities if backend is not None else ()
    for one in (*profile.capabilities, *own):
        if not one.architectures or rendering.profile.architecture in one.architectures:
            yield one


def shared_memory_mib(rendering: Rendering) -> int:
    """Upper bound of /dev/shm: the larger of what the accelerator and the fabric need."""
    transport = rendering.plan.transport
    fabric = fabric_of(rendering, transport).shared_memory_mib if transport is not None else None
    return max(rendering.profile.shared_memory_mib, fabric or 0)


def _environment(
    rendering: Rendering, transport: Transport, profile: FabricProfile
) -> Iterator[tuple[str, str]]:
    for setting in profile.env:
        if not setting.backends or transport.all2all in setting.backends:
            yield setting.name, setting.value
    sizing = rendering.plan.sizing
    if transport.all2all == _LOW_LATENCY and sizing is not None:
        depth = 2 * (sizing.max_batched_tokens + 1)
        if depth > _USUAL_DEPTH:
            yield _QUEUE_DEPTH, str(depth)


def fabric_flags(rendering: Rendering) -> Iterator[tuple[str, str | None, str]]:
    """(flag of `vllm serve`, value or None for a switch, why). Users' own go before them."""
    transport = rendering.plan.transport
    if transport is None or transport.all2all is None:
        return
    backend = _backend(rendering, transport)
    yield "all2all-backend", transport.all2all, _why(transport, backend)
    if backend is not None and backend.microbatches and rendering.plan.pods_per_group > 1:
        yield (
            "enable-dbo",
            None,
            "a step is cut in two, so that one half computes while the other's tokens are on the network",
        )
        yield (
            "dbo-decode-token-threshold",
            str(_DECODE_THRESHOLD),
            "smaller steps are not cut, as their halves would leave the GPUs idle",
        )


def _why(transport: Transport, backend: Backend | None) -> str:
    over = f"over {transport.fabric}"
    if backend is None:
        return f"how tokens get to their experts {over}"
    where = "all GPUs of the group" if backend.sends is Sends.EVERYWHERE else "the GPUs of their experts only"
    return f"sends tokens to {where}, {over}"


def _backend(rendering: Rendering, transport: Transport) -> Backend | None:
    if transport.all2all is None:
        return None
    return rendering.config.catalog.fabrics.backend(transport.all2all)
