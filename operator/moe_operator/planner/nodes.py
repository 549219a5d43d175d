"""Which accelerator a deployment runs on, and how many of its GPUs a node has."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from moe_operator.api import reasons
from moe_operator.api.spec import ModelDeploymentSpec
from moe_operator.catalog.accelerators import AcceleratorProfile, Catalog, is_divided
from moe_operator.catalog.fabrics import FabricCatalog, load_fabrics
from moe_operator.planner.allocation import allocated_alike, by_claims, gpus_of, not_as_asked
from moe_operator.planner.inventory import Inventory, NodeFacts
from moe_operator.planner.node_object import memory_contradicts
from moe_operator.planner.phrases import either as _or
from moe_operator.planner.phrases import gpus as _gpus
from moe_operator.planner.phrases import some as _some
from moe_operator.planner.plan import Refusal


@dataclass(frozen=True)
class Hardware:
    """What a layout is made for."""

    profile: AcceleratorProfile
    gpus_per_node: int
    """GPUs that a group may use on one node; on `cpu` ranks of one pod."""
    notes: tuple[str, ...]
    memory_mib: int | None = None
    """Memory of one GPU in MiB: the least that these nodes say, else the catalogue's; None on `cpu`."""
    nodes: tuple[NodeFacts, ...] = ()
    """The accelerator's nodes with at least so many GPUs; empty where nodes could not be read or are yet to come."""
    fabrics: FabricCatalog = field(default_factory=load_fabrics, compare=False)
    """What is known of networks at this site."""
    wanted_fabric: str | None = None
    """As `hardware.fabric` says."""
    claims: bool = False
    """Whether pods ask for GPUs by ResourceClaims."""

    @property
    def memory_bytes(self) -> int | None:
        """The same in bytes."""
        return None if self.memory_mib is None else self.memory_mib * 2**20


def hardware_options(
    spec: ModelDeploymentSpec, inventory: Inventory, catalog: Catalog
) -> tuple[Hardware, ...] | Refusal:
    """The wanted accelerators that nodes have, in the order of the spec; at least one.

    With a pinned `gpusPerNode` nodes may be yet to come. Where nodes cannot be read, every wanted one is an option.
    """
    found = _options(spec, inventory, catalog)
    if isinstance(found, Refusal):
        return found
    wanted = spec.hardware.fabric
    return tuple(replace(one, fabrics=catalog.fabrics, wanted_fabric=wanted) for one in found)


def _options(
    spec: ModelDeploymentSpec, inventory: Inventory, catalog: Catalog
) -> tuple[Hardware, ...] | Refusal:
    profiles = _wanted(spec, catalog)
    if isinstance(profiles, Refusal):
        return profiles
    if inventory.nodes is None:
        return tuple(_unseen(profile, spec) for profile in profiles)
    nodes = [node for node in inventory.nodes if _selected(node, spec)]
    options: list[Hardware] = []
    absent: list[AcceleratorProfile] = []
    for profile in profiles:
        found = _on_nodes(profile, nodes, spec)
        if isinstance(found, Refusal):
            if not options:
                return found
        elif found is None:
            absent.append(profile)
        else:
            options.append(found if options else _after(found, passed_over=absent))
    if options:
        return tuple(options)
    pin = spec.hardware.gpus_per_node
    if pin is not None and profiles[0].resource_name is not None:
        note = f"no node has {profiles[0].name} yet; planned for nodes of {_gpus(pin)} as pinned"
        hardware = Hardware(profiles[0], pin, (note, *profiles[0].notes), profiles[0].memory_mib)
        return (replace(hardware, claims=by_claims(spec, profiles[0], ())),)
    return _no_nodes(profiles, nodes, spec, catalog)


def _wanted(spec: ModelDeploymentSpec, catalog: Catalog) -> Sequence[AcceleratorProfile] | Refusal:
    profiles: list[AcceleratorProfile] = []
    for name in spec.hardware.accelerators or [spec.hardware.accelerator or ""]:
        profile = catalog.accelerator(name)
        if profile is None:
            return Refusal(
                reasons.UNKNOWN_ACCELERATOR,
                f"the catalogue has no accelerator {name!r}; it has {', '.join(catalog.closest(name))}",
            )
        if profile not in profiles:
            profiles.append(profile)
    return profiles


def _selected(node: NodeFacts, spec: ModelDeploymentSpec) -> bool:
    return all(node.labels.get(key) == value for key, value in spec.pod_template.node_selector.items())


def _unseen(profile: AcceleratorProfile, spec: ModelDeploymentSpec) -> Hardware:
    pin = spec.hardware.gpus_per_node
    if profile.resource_name is None:
        return Hardware(profile, pin or profile.gpus_per_node, profile.notes)
    source = "as pinned" if pin else "as the catalogue says"
    gpus = pin or profile.gpus_per_node
    note = (
        f"nodes could not be read: planned for {profile.name} nodes of {_gpus(gpus)} {source}; let the"
        " operator list nodes, or pin hardware.gpusPerNode"
    )
    hardware = Hardware(profile, gpus, (note, *profile.notes), profile.memory_mib)
    return replace(hardware, claims=by_claims(spec, profile, ()))


def _on_nodes(
    profile: AcceleratorProfile, nodes: Iterable[NodeFacts], spec: ModelDeploymentSpec
) -> Hardware | Refusal | None:
    """None where no node has it."""
    pin = spec.hardware.gpus_per_node
    if profile.resource_name is None:
        if pin is None and not any(open_to(node, spec, profile) for node in nodes):
            return None
        return Hardware(profile, pin or profile.gpus_per_node, profile.notes)
    offering = _with_whole_gpus(profile, nodes)
    claims = by_claims(spec, profile, offering)
    with_it, notes = allocated_alike(profile, spec, offering, claims)
    sizes = Counter(gpus_of(profile, node) for node in with_it)
    if not sizes:
        return None
    largest = max(sizes)
    if pin is not None:
        if pin > largest:
            return Refusal(
                reasons.INVALID_LAYOUT,
                f"hardware.gpusPerNode is {pin}, but the {profile.name} nodes have {_or(sizes)} GPUs: set it"
                f" to at most {largest}, or leave it out",
                retry=True,
            )
        return _hardware(profile, pin, (*notes, *profile.notes), with_it, claims)
    # The size that stands for most GPUs: one odd node must not decide.
    usual = max(sizes, key=lambda size: (size * sizes[size], size))
    if len(sizes) > 1:
        notes = (
            f"{profile.name} nodes have {_or(sizes)} GPUs; planned for {usual}, which most have;"
            " hardware.gpusPerNode chooses another",
            *notes,
        )
    return _hardware(profile, usual, (*notes, *profile.notes), with_it, claims)


def _with_whole_gpus(profile: AcceleratorProfile, nodes: Iterable[NodeFacts]) -> list[NodeFacts]:
    """Nodes that offer undivided GPUs of this kind."""
    return [
        node
        for node in nodes
        if not node.divided and profile.recognises(node.labels) and gpus_of(profile, node)
    ]


def _hardware(
    profile: AcceleratorProfile,
    gpus: int,
    notes: tuple[str, ...],
    nodes: Iterable[NodeFacts],
    claims: bool,
) -> Hardware:
    fit = tuple(node for node in nodes if gpus_of(profile, node) >= gpus)
    return Hardware(profile, gpus, notes, _memory(profile, fit), fit, claims=claims)


def _memory(profile: AcceleratorProfile, nodes: Iterable[NodeFacts]) -> int | None:
    """The least that nodes say: pods of a group are alike, so the smallest GPU bounds them all.

    A node that contradicts its own product (`Inventory.problems` names it) decides only where all do.
    """
    expected = profile.memory_mib
    said = [node.memory_mib or expected for node in nodes if node.memory_mib or expected]
    credible = [mib for mib in said if mib and not (expected and memory_contradicts(mib, expected))]
    return min((mib for mib in credible or said if mib), default=expected)


def open_to(node: NodeFacts, spec: ModelDeploymentSpec, profile: AcceleratorProfile) -> bool:
    """Whether pods of this deployment may run there."""
    tolerations = [*spec.pod_template.tolerations, *profile.tolerations]
    return not node.cordoned and all(taint.tolerated_by(tolerations) for taint in node.taints)


def _after(found: Hardware, passed_over: Sequence[AcceleratorProfile]) -> Hardware:
    if not passed_over:
        return found
    note = f"{found.profile.name} was taken because no node has {_or(p.name for p in passed_over)}"
    return replace(found, notes=(note, *found.notes))


# --- Saying why there is no node -----------------------------------------------------------------


def _no_nodes(
    profiles: Sequence[AcceleratorProfile],
    nodes: Sequence[NodeFacts],
    spec: ModelDeploymentSpec,
    catalog: Catalog,
) -> Refusal:
    names = _or(profile.name for profile in profiles)
    selector = spec.pod_template.node_selector
    among = f" among those with {_labels(selector.items())}" if selector else ""
    parts = [f"no node has {names}: {len(nodes)} nodes{among} were looked at"]
    if all(profile.resource_name is None for profile in profiles):
        if nodes:
            parts.append("all are cordoned or tainted; uncordon one, or add podTemplate.tolerations")
        else:
            correct = "correct podTemplate.nodeSelector, label a node" if selector else "add nodes"
            parts.append(
                f"{correct}, or pin hardware.gpusPerNode where nodes come only when pods ask for them"
            )
        return Refusal(reasons.NO_NODES, "; ".join(parts), retry=True)
    wanted = [f"{key} {_or(values)}" for profile in profiles for key, values in profile.node_labels]
    parts.append(f"the labels looked for are {', '.join(wanted)}")
    parts.append(_found(nodes, catalog))
    parts += _hints(profiles, nodes, catalog)
    parts += not_as_asked(spec, profiles, nodes)
    parts.append("where nodes come only when pods ask for them, pin hardware.gpusPerNode")
    return Refusal(reasons.NO_NODES, "; ".join(parts), retry=True)


def _found(nodes: Iterable[NodeFacts], catalog: Catalog) -> str:
    counts = Counter(label for node in nodes for label in catalog.product_labels(node.labels))
    if not counts:
        return "no node says what accelerator it has"
    return "nodes have " + ", ".join(f"{label} ({count})" for label, count in sorted(counts.items()))


def _hints(profiles: Sequence[AcceleratorProfile], nodes: Iterable[NodeFacts], catalog: Catalog) -> list[str]:
    hints: list[str] = []
    listed = list(nodes)
    for profile in profiles:
        resource = profile.resource_name
        if resource is None:
            continue
        silent = [
            node.name for node in listed if profile.recognises(node.labels) and resource not in node.gpus
        ]
        if silent:
            hints.append(
                f"{_some(silent)} carry the label of {profile.name} but offer no {resource}: is its device"
                " plugin running there?"
            )
        nameless = [
            node.name for node in listed if resource in node.gpus and not catalog.product_labels(node.labels)
        ]
        if nameless:
            keys = profile.label_keys()
            hints.append(
                f"{_some(nameless)} offer {resource} without saying which: install the vendor's node labeller"
                f" (GPU Feature Discovery for NVIDIA), or label them {keys[0]}={profile.node_labels[0][1][0]}"
            )
    if any(node.divided or any(map(is_divided, catalog.product_labels(node.labels))) for node in listed):
        hints.append("shared or divided GPUs do not count, as a rank needs whole ones")
    return list(dict.fromkeys(hints))


def _labels(items: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{key}={value}" for key, value in items)
