"""From a fabric to the transport of a group: its all-to-all, what sizes and speeds follow, and what to say of it."""

from collections.abc import Iterator
from dataclasses import replace

from moe_operator.api import names, reasons
from moe_operator.api.spec import ModelDeploymentSpec, PodSecurityProfile
from moe_operator.catalog.fabric import Domain, GpuInitiated
from moe_operator.catalog.fabrics import DEFAULT_BACKEND, Backend, Candidate, Reach, Sends
from moe_operator.catalog.images import ImageTable, Known, Use, load_images
from moe_operator.planner.fabric import Choice, choose, unclaimed
from moe_operator.planner.link import Link, holds
from moe_operator.planner.nodes import Hardware
from moe_operator.planner.plan import Refusal, Transport
from moe_operator.planner.roofline import Load, Step, exchange_seconds
from moe_operator.planner.shape import GroupShape
from moe_operator.planner.sizing import Sized

_FLAG = "all2all-backend"
#: What the numbers of a network without RDMA are compared with.
_RDMA = "infiniband"
_WIDE = {Reach.NODE: 0, Reach.DOMAIN: 1, Reach.NETWORK: 2}


class Transports:
    """What groups of one spec would talk over on one kind of node; asked for each shape."""

    def __init__(
        self,
        spec: ModelDeploymentSpec,
        hardware: Hardware,
        role: str = names.ROLE_SERVE,
        images: ImageTable | None = None,
    ) -> None:
        self._spec, self._hardware, self._role = spec, hardware, role
        self._images = images or load_images()
        self._choices: dict[tuple[int, int], Choice | Refusal | None] = {}
        self._links: dict[tuple[int, int], Link | Refusal | None] = {}

    @property
    def _image(self) -> str:
        return self._spec.engine.image or self._hardware.profile.default_image

    def choice(self, shape: GroupShape) -> Choice | Refusal | None:
        """The fabric of this shape; None for a group that has nobody to talk to, and on `cpu`."""
        if shape.width == 1:
            return None
        key = (shape.pods, shape.gpus_per_pod)
        if key not in self._choices:
            self._choices[key] = choose(self._spec, self._hardware, *key)
        return self._choices[key]

    def link(self, shape: GroupShape) -> Link | Refusal | None:
        """The same for sizing; None: what is usual."""
        key = (shape.pods, shape.gpus_per_pod)
        if shape.width == 1:
            return None
        if key not in self._links:
            self._links[key] = self._link(shape)
        return self._links[key]

    def _link(self, shape: GroupShape) -> Link | Refusal | None:
        choice = self.choice(shape)
        if choice is None or isinstance(choice, Refusal):
            return choice
        profile = choice.profile
        asked = self._asked()
        if isinstance(asked, Refusal):
            return asked
        if asked is not None and self._adapters_loaded() and asked.name != DEFAULT_BACKEND:
            return Refusal(
                reasons.INVALID_LAYOUT,
                f"engine.args.{_FLAG} is {asked.name}, but vLLM's LoRA adapters go with {DEFAULT_BACKEND} only where"
                " experts are spread over ranks: leave it out, or serve without model.adapters",
            )
        if asked is not None and _WIDE[asked.reach] < _WIDE[profile.reach]:
            return Refusal(
                reasons.INVALID_LAYOUT,
                f"engine.args.{_FLAG} {asked.name} works within {_within(asked.reach)}, but a group of {shape.pods}"
                f" nodes talks over {profile.name}: leave it out, or set hardware.gpusPerGroup to at most"
                f" {self._hardware.gpus_per_node}",
                retry=True,
            )
        return Link(
            bandwidth=profile.bandwidth_per_gpu,
            latency=profile.latency,
            network=profile.reach is Reach.NETWORK,
            candidates=(Candidate(asked),)
            if asked is not None
            else tuple(one for one in profile.all2all if self._obstacle(one, choice) is None),
        )

    def _asked(self) -> Backend | Refusal | None:
        """What the spec's flags say."""
        flags = self._spec.engine.args
        name = flags.get(_FLAG, flags.get(_FLAG.replace("-", "_")))
        if name is None:
            return None
        fabrics = self._hardware.fabrics
        found = fabrics.backend(name)
        if found is None:
            known = ", ".join(one.name for one in fabrics.backends())
            message = f"engine.args.{_FLAG}: vLLM 0.32 has no {name!r}; it has {known}"
            return Refusal(reasons.INVALID_SPEC, message)
        return found

    def _obstacle(self, candidate: Candidate, choice: Choice) -> str | None:
        """Why a backend is not for these GPUs, this role, network or image; empty where there is nothing to say."""
        profile, backend = self._hardware.profile, candidate.backend
        capability = profile.compute_capability or ""
        if candidate.accelerators and profile.resource_name not in candidate.accelerators:
            return ""
        if candidate.capabilities and not capability.startswith(candidate.capabilities):
            return ""
        if candidate.roles and self._role not in candidate.roles:
            return ""
        if self._adapters_loaded() and backend.name != DEFAULT_BACKEND:
            return "vLLM's LoRA adapters on experts go with its default only"
        if candidate.gpu_initiated and choice.profile.gpu_initiated is not GpuInitiated.AVAILABLE:
            return (
                "GPUs must drive the adapters themselves, which no label shows: where the nodes' drivers allow it"
                f" (IBGDA), say fabrics.{choice.profile.name}.gpuInitiated: Available in the operator's configuration"
            )
        own = [
            one.name
            for one in backend.capabilities
            if not one.architectures or profile.architecture in one.architectures
        ]
        if own and self._restricted():
            return f"it needs {', '.join(own)}, which engine.podSecurity Restricted does not give"
        if backend.component and self._images.contains(self._image, backend.component) is not Known.YES:
            known = self._images.contains(self._image, backend.component)
            has = "lacks" if known is Known.NO else "is not known to have"
            return f"image {self._image} {has} {backend.component}; if it has, set engine.args.{_FLAG}"
        return None

    def _restricted(self) -> bool:
        return self._spec.engine.pod_security is PodSecurityProfile.RESTRICTED

    def _adapters_loaded(self) -> bool:
        asked = any(name.replace("_", "-") == "enable-lora" for name in self._spec.engine.args)
        return asked or bool(self._spec.model.adapters)

    def transport(self, shape: GroupShape, backend: Backend | None) -> Transport | None:
        """For the plan of a shape that was sized; None for a group that has nobody to talk to, and on `cpu`."""
        choice = self.choice(shape)
        if choice is None:
            return None
        assert isinstance(choice, Choice)  # else there would be no such plan
        profile = choice.profile
        # On arm64 FlashInfer's memory handles are those of the fabric even within a node: they need a channel.
        handles = (
            backend is not None
            and backend.name.startswith("flashinfer_")
            and self._hardware.profile.architecture == "arm64"
        )
        return Transport(
            fabric=profile.name,
            all2all=backend.name if backend is not None else None,
            rdma_resource=choice.resource,
            rdma_count=choice.count,
            domain=choice.domain,
            domain_required=profile.domain is Domain.REQUIRED,
            compute_domain=profile.compute_domain or handles,
        )

    def notes(self, shape: GroupShape, backend: Backend | None, sized: Sized | None) -> Iterator[str]:
        """What to know of the transport, with numbers where there are."""
        choice = self.choice(shape)
        profile = self._hardware.profile
        if isinstance(choice, Choice):
            if shape.pods > 1:
                yield self._between_nodes(choice, backend, sized)
                if sized is not None and backend is not None and self._asked() is None:
                    yield from self._passed_over(choice, backend, sized)
        else:
            choice = None
        platform = (profile.resource_name or "cpu").partition(".")[0]
        use = Use(
            architecture=profile.architecture,
            platform={"nvidia": "nvidia", "amd": "amd"}.get(platform, "cpu"),
            fabric=choice.profile.name if choice is not None else None,
            backend=backend.name if backend is not None else None,
        )
        yield from self._images.notes(self._image, use)

    def _between_nodes(self, choice: Choice, backend: Backend | None, sized: Sized | None) -> str:
        profile = choice.profile
        by = f" by {choice.resource}: {choice.count} per pod" if choice.resource else ""
        speed = profile.bandwidth_per_gpu or (self._hardware.profile.interconnect_bandwidth or 0) * 10**9
        said = f"a group's nodes talk over {profile.name}{by}, {speed / 1e9:.3g} GB/s per GPU"
        if not choice.seen:
            said += ", assumed as there are no nodes to read"
        if backend is not None and sized is not None:
            said += f"; {_share(sized)}"
        if profile.capabilities:
            added = ", ".join(one.name for one in profile.capabilities)
            said += (
                f"; engines that do not run as root have no {added}: the nodes must let them lock memory"
                if self._restricted()
                else f"; pods get {added}, which the baseline Pod Security Standard refuses"
            )
        if profile.reach is Reach.NETWORK and not profile.resources:
            said += f"; {self._without_rdma(profile.name, sized)}"
        return said

    def _without_rdma(self, name: str, sized: Sized | None) -> str:
        fast = self._hardware.fabrics.fabric(_RDMA)
        said = (
            "hardware.fabric says so" if self._spec.hardware.fabric == name else "no RDMA resource was found"
        )
        if sized is not None and fast is not None and fast.bandwidth_per_gpu and sized.backend is not None:
            load = replace(
                sized.load, exchange_bandwidth=fast.bandwidth_per_gpu, exchange_latency=fast.latency
            )
            said += f" (over {fast.name} at {fast.bandwidth_per_gpu / 1e9:.3g} GB/s it would be {_share(sized, load)})"
        if self._spec.hardware.fabric != name:
            if foreign := list(unclaimed(self._hardware)):
                said += f"; nodes offer {', '.join(foreign)}, which no fabric takes"
            said += (
                "; where nodes have adapters name their resource in the operator's configuration"
                f" (fabrics.{_RDMA}.rdmaResource)"
            )
        return said

    def _passed_over(self, choice: Choice, backend: Backend, sized: Sized) -> Iterator[str]:
        """Backends that come before the chosen one, and what they would take."""
        precision = sized.checkpoint.precision.value
        for candidate in choice.profile.all2all:
            if candidate.backend.name == backend.name:
                return
            if not holds(candidate, precision, balanced=False):
                continue
            obstacle = self._obstacle(candidate, choice)
            if obstacle is None and not holds(candidate, precision, balanced=sized.placement.balanced):
                obstacle = candidate.reason
            if obstacle:
                load = replace(sized.load, sparse_dispatch=candidate.backend.sends is Sends.CHOSEN)
                yield f"all-to-all by {candidate.backend.name} would be {_share(sized, load)}, but {obstacle}"


def _share(sized: Sized, load: Load | None = None) -> str:
    """How much of a step is all-to-all, estimated."""
    used = load or sized.load
    architecture, running = sized.model.architecture, sized.throughput.sequences_per_rank
    exchange = exchange_seconds(architecture, used, running)
    whole = Step(architecture, used).seconds(running)
    return f"{exchange * 1000:.1f} of a step's {whole * 1000:.1f} ms (estimated)"


def _within(reach: Reach) -> str:
    return "a node" if reach is Reach.NODE else "an NVLink domain"
