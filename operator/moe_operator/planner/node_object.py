"""One Node object (a plain dict) as facts, and what its labels get wrong. Fields that are absent count as empty."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from moe_operator.catalog.accelerators import Catalog, is_divided
from moe_operator.planner.compute_domains import CLIQUE
from moe_operator.planner.facts import NVIDIA_GPU, NodeFacts, Problem, SiteNames, Taint
from moe_operator.planner.quantities import whole
from moe_operator.planner.resource_slices import SliceGpus

#: Taints that come and go with a node's health; they say nothing about what the node is for.
_PASSING = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")
_KEEPS_AWAY = ("NoSchedule", "NoExecute")

_PRODUCT = "nvidia.com/gpu.product"
_COUNT = "nvidia.com/gpu.count"
_DIGITS = re.compile(r"[0-9]{1,9}")
#: Label -> (form, what the form is, MiB in a unit). GPU Feature Discovery counts MiB, AMD's labeller GiB.
_MEMORY = {
    "nvidia.com/gpu.memory": (re.compile(r"[1-9][0-9]{0,9}"), "a whole number of MiB such as 183359", 1),
    "amd.com/gpu.vram": (re.compile(r"[1-9][0-9]{0,6}G"), "whole GiB such as 192G", 1024),
    "beta.amd.com/gpu.vram": (re.compile(r"[1-9][0-9]{0,6}G"), "whole GiB such as 192G", 1024),
}
#: Labels that say how GPUs are shared or partitioned -> values (prefixes) that mean whole ones. A product label
#: with a suffix says it too, but a renamed product or Google's nodes do not carry one.
_DIVIDED_BY = {
    "nvidia.com/gpu.sharing-strategy": ("none",),
    "cloud.google.com/gke-gpu-sharing-strategy": (),
    "cloud.google.com/gke-gpu-partition-size": (),
    "amd.com/compute-memory-partition": ("spx",),
}
#: By extended resource: label of the product, what stands for a blank in it, and who writes it.
_LABELLER = {
    NVIDIA_GPU: (_PRODUCT, "-", "GPU Feature Discovery"),
    "amd.com/gpu": ("amd.com/gpu.product-name", "_", "AMD's node labeller"),
}
#: How far a node's own figure may be from the catalogue's, in percent: drivers reserve more or less of the
#: same memory (39538 and 40960 MiB of one A100), while no two products of a family are this close.
_MEMORY_TOLERANCE_PERCENT = 15


def read_node(node: Mapping[str, Any], slices: SliceGpus | None, site: SiteNames) -> NodeFacts:
    """The node, with the GPUs of its ResourceSlices where no device plugin offers any."""
    meta, spec, status = node["metadata"], node.get("spec") or {}, node.get("status") or {}
    labels = dict(meta.get("labels") or {})
    capacity, allocatable = status.get("capacity") or {}, status.get("allocatable")
    gpus = _devices(capacity)
    usable = _devices(capacity if allocatable is None else allocatable)
    from_slices = slices is not None and slices.gpus > 0 and slices.resource not in gpus
    if slices is not None and from_slices:
        gpus, usable = gpus | {slices.resource: slices.gpus}, usable | {slices.resource: slices.usable}
    memory = _memory(labels)
    if memory is None and slices is not None:
        memory = slices.memory_mib
    return NodeFacts(
        name=meta["name"],
        labels=labels,
        gpus=gpus,
        cordoned=bool(spec.get("unschedulable")),
        taints=tuple(
            Taint(taint["key"], taint.get("value") or "", taint["effect"])
            for taint in spec.get("taints") or ()
            if taint["effect"] in _KEEPS_AWAY and not taint["key"].startswith(_PASSING)
        ),
        allocatable=usable,
        memory_mib=memory,
        divided=_divided(labels),
        from_slices=from_slices,
        products=slices.products if slices is not None else (),
        clique=labels.get(CLIQUE) or None,
        topology=tuple((key, labels[key]) for key in site.topology_labels if labels.get(key)),
        rdma={
            name: count
            for name, amount in (allocatable or capacity).items()
            if "/" in name and site.is_rdma(name) and (count := whole(amount))
        },
        ready=all(
            c.get("status") == "True" for c in status.get("conditions") or () if c.get("type") == "Ready"
        ),
    )


def memory_contradicts(memory_mib: int, expected_mib: int) -> bool:
    """Whether a GPU with this memory cannot be the product whose memory is expected."""
    return abs(memory_mib - expected_mib) * 100 > expected_mib * _MEMORY_TOLERANCE_PERCENT


def problems_of(node: NodeFacts, slices: SliceGpus | None, catalog: Catalog) -> Iterator[Problem]:
    """What the node's labels say wrongly, or against each other."""
    named = catalog.named_by(node.labels)
    if len({profile.name for _, profile in named}) > 1:
        said = " but ".join(f"{key}={node.labels[key]}" for key, _ in named)
        yield Problem(
            node.name, named[1][0], f"says another accelerator: {said}; correct the wrong label", True
        )
    yield from _misread_memory(node)
    if node.divided:
        return  # Figures of slices and shares need not be those of whole GPUs.
    expected = named[0][1].memory_mib if named else None
    if named and expected and node.memory_mib is not None and memory_contradicts(node.memory_mib, expected):
        key, profile = named[0]
        at = next((k for k in _MEMORY if k in node.labels), "ResourceSlice memory")
        yield Problem(
            node.name,
            at,
            f"is {node.memory_mib} MiB, but {key}={node.labels[key]} has {expected} MiB: one of the two is"
            f" wrong (a label set by hand?); correct it, or the engine on {profile.name} is sized wrongly",
            contradiction=True,
        )
    yield from _miscounted(node)
    if slices is not None:
        yield from _unlike_slices(node, slices, catalog)


def _misread_memory(node: NodeFacts) -> Iterator[Problem]:
    for key, (form, meaning, _) in _MEMORY.items():
        value = node.labels.get(key)
        if value is not None and form.fullmatch(value) is None:
            yield Problem(
                node.name,
                key,
                f"{value!r} is not {meaning}: the catalogue's figure is used instead; correct or remove the label",
                contradiction=True,
            )


def _miscounted(node: NodeFacts) -> Iterator[Problem]:
    value = node.labels.get(_COUNT)
    offered = node.gpus.get(NVIDIA_GPU)
    if value is None or offered is None or any(name.startswith("nvidia.com/mig-") for name in node.gpus):
        # Without an offer there is nothing to compare; with mixed MIG only part of the GPUs are offered whole.
        return
    if not _DIGITS.fullmatch(value):
        yield Problem(
            node.name, _COUNT, f"{value[:63]!r} is no number: {offered} GPUs are counted; remove the label"
        )
    elif int(value) != offered:
        yield Problem(
            node.name,
            _COUNT,
            f"is {value}, but the node offers {offered} {NVIDIA_GPU}: {offered} are counted; restart its device"
            " plugin and GPU Feature Discovery, and look for a GPU that fell off the bus",
        )


def _unlike_slices(node: NodeFacts, slices: SliceGpus, catalog: Catalog) -> Iterator[Problem]:
    if slices.missing:
        yield Problem(
            node.name,
            "ResourceSlice",
            f"{slices.missing} of its pool's slices are missing, so GPUs may be: {slices.gpus} are counted; read"
            " again when the driver has published all",
        )
    if len(slices.products) > 1:
        yield Problem(
            node.name,
            "ResourceSlice productName",
            f"GPUs of several kinds: {', '.join(slices.products)}; a rank cannot tell them apart",
        )
    labelled = catalog.recognise(node.labels)
    key, blank, labeller = _LABELLER.get(slices.resource, _LABELLER[NVIDIA_GPU])
    for product in slices.products:
        # What the vendor's labeller would make of the driver's product name.
        value = re.sub(r"[^A-Za-z0-9._ -]", "", product).replace(" ", blank)
        known = catalog.recognise({key: value})
        if not catalog.product_labels(node.labels):
            yield Problem(
                node.name,
                key,
                f"is missing, but its ResourceSlices say {product}: pods find nodes by the label; install {labeller},"
                f" or label the node {key}={value}",
            )
        elif known and labelled and known is not labelled:
            yield Problem(
                node.name,
                key,
                f"the labels say {labelled.name}, but its ResourceSlices say {product}; correct the label",
            )


def _devices(amounts: Mapping[str, Any]) -> dict[str, int]:
    return {
        name: count for name, amount in amounts.items() if "/" in name and (count := _count(name, amount))
    }


def _count(name: str, amount: object) -> int:
    """A whole number of devices; 0 for what is none. Shared adapters are counted in slots, of which there may be `1k`;
    no node has thousands of GPUs."""
    if name.endswith("/gpu"):
        return int(str(amount)) if _DIGITS.fullmatch(str(amount)) else 0
    return whole(amount) or 0


def _memory(labels: Mapping[str, str]) -> int | None:
    for key, (form, _, unit) in _MEMORY.items():
        value = labels.get(key, "")
        if form.fullmatch(value):
            return int(value.rstrip("G")) * unit
    return None


def _divided(labels: Mapping[str, str]) -> bool:
    return is_divided(labels.get(_PRODUCT, "")) or any(
        labels.get(key) and not labels[key].startswith(whole_values or ("\0",))
        for key, whole_values in _DIVIDED_BY.items()
    )
