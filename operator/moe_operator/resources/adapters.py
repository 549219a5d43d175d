"""LoRA adapters: how the engine is told of them, and the claims that they are read from."""

import json
from collections.abc import Iterator, Sequence

from moe_operator.api.features import AdapterSpec
from moe_operator.resources.argument import Argument
from moe_operator.resources.model_source import Scheme
from moe_operator.resources.pod_parts import PodParts
from moe_operator.resources.weights import Kept

#: Each claim below a folder of its own name.
MOUNT_PATH = "/adapters"
VOLUME_PREFIX = "moe-adapters-"


def adapter_arguments(adapters: Sequence[AdapterSpec], kept: Kept | None) -> Iterator[Argument]:
    """The list of adapters, and the modules that they change where all of them say so."""
    if not adapters:
        return
    first, *others = (_module(adapter, kept) for adapter in adapters)
    yield Argument(
        "lora-modules", first, "adapters of model.adapters, by the names that clients use", more=tuple(others)
    )
    if all(adapter.target_modules for adapter in adapters):
        first, *others = sorted({name for adapter in adapters for name in adapter.target_modules or ()})
        yield Argument(
            "lora-target-modules",
            first,
            "memory is made for what the adapters change only",
            more=tuple(others),
        )


def _module(adapter: AdapterSpec, kept: Kept | None) -> str:
    return json.dumps({"name": adapter.name, "path": adapter_path(adapter, kept)}, separators=(",", ":"))


def adapter_path(adapter: AdapterSpec, kept: Kept | None) -> str:
    """A folder in the container, or a repository on the hub, which the engine downloads where no cache keeps it."""
    if kept is not None and (folder := kept.adapter_folder(adapter.source)):
        return folder
    rest = adapter.source.partition("://")[2].strip("/")
    return f"{MOUNT_PATH}/{rest}" if Scheme.CLAIM.names(adapter.source) else rest


def adapter_parts(adapters: Sequence[AdapterSpec], kept: Kept | None) -> PodParts:
    """The claims, read-only, and that the hub may be asked where an adapter is there alone."""
    claims = dict.fromkeys(
        adapter.source.partition("://")[2].partition("/")[0]
        for adapter in adapters
        if Scheme.CLAIM.names(adapter.source)
    )
    volumes = [(f"{VOLUME_PREFIX}{index}", claim) for index, claim in enumerate(claims)]
    hub = kept is None and any(Scheme.HUB.names(adapter.source) for adapter in adapters)
    return PodParts(
        # The model itself may come from a claim, for which the hub is shut.
        env=({"name": "HF_HUB_OFFLINE", "value": "0"},) if hub else (),
        volumes=tuple(
            {"name": name, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
            for name, claim in volumes
        ),
        mounts=tuple(
            {"name": name, "mountPath": f"{MOUNT_PATH}/{claim}", "readOnly": True} for name, claim in volumes
        ),
        reasons={
            **({"HF_HUB_OFFLINE": "adapters of model.adapters are on the hub"} if hub else {}),
            **{f"{MOUNT_PATH}/{claim}": "adapters of model.adapters" for _, claim in volumes},
        },
    )
