"""The whole table as argument lists: every model of the catalogue on every accelerator in every precision that fits."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from factories.deployments import model_deployment, rendering
from factories.platforms import platforms
from loopback.published_configs import config_json, quantization_config, write_checkpoint
from moe_operator.catalog.accelerators import AcceleratorProfile, load_catalog
from moe_operator.catalog.fabrics import Reach
from moe_operator.catalog.models.catalog import load_models
from moe_operator.catalog.models.model import Model
from moe_operator.planner.inventory import Inventory
from moe_operator.planner.inventory_file import read_inventory
from moe_operator.planner.plan import Plan
from moe_operator.planner.planning import plan
from moe_operator.resources.engine_args import engine_arguments
from moe_operator.resources.rendering import Rendering

#: Enough for the widest group that is proposed.
_NODES = 16
#: Where the cases besides the plain table are planned: the roomiest GPUs.
_ROOMY = "B300"
#: Where the engine's features are planned, for the first model of each architecture.
_WITH_FEATURES = (_ROOMY, "H200", "MI355X")


@dataclass(frozen=True)
class Case:
    """One distinct argument list, and the first of the plans that it came from."""

    name: str
    platform: str
    """`cuda`, an AMD target, or `cpu`."""
    capability: int
    """NVIDIA's, times ten; else 0."""
    memory: int
    """Bytes of one GPU."""
    arguments: tuple[str, ...]
    """As the kubelet expands them in the last pod, with a directory in the place of the repository."""
    plan: Plan
    rope: bool = False

    def told(self) -> dict[str, Any]:
        """For the engine's Python."""
        return {
            "id": self.name,
            "arguments": self.arguments,
            "gpus": self.plan.gpus_per_pod,
            "memory": self.memory,
            "capability": self.capability,
            "rope": self.rope,
        }


@dataclass
class Table:
    """The distinct lists of all plans."""

    cases: list[Case]
    plans: int = 0
    refused: int = 0
    """Combinations that do not fit or that the accelerator cannot run."""
    fabrics: set[str] = field(default_factory=set)
    """That groups were planned over. Lists may be the same over several."""
    models: set[str] = field(default_factory=set)
    """That were planned at least once. Those with the same config.json share lists."""
    examples: dict[str, str] = field(default_factory=dict)
    """Name of a shipped example with nodes of its own -> name of the case with its list."""


def argument_table(folder: Path) -> Table:
    """Plans everything and writes a directory per distinct config.json below `folder`."""
    made = _Maker(folder)
    table = Table([])
    for profile, nodes, model, spec, more in (*_combinations(), *_over_networks()):
        hardware = {"accelerator": profile.name, **more.get("hardware", {})}
        deployment = model_deployment(
            model={"name": model.name, **spec}, hardware=hardware, engine=more.get("engine", {})
        )
        planned = plan(deployment, nodes, load_catalog())
        if not isinstance(planned, Plan):
            table.refused += 1
            continue
        table.plans += 1
        table.models.add(model.name)
        table.fabrics |= {planned.transport.fabric} if planned.transport else set()
        name = " ".join(
            (profile.name, model.name, *(f"{key}={value}" for key, value in (spec | more).items()))
        )
        made.add(name, rendering(deployment, planned), model)
    for platform in platforms():
        report = platform.report()
        assert report.sizes is not None
        table.plans += 1
        table.examples[platform.name] = made.add(platform.name, report.rendering, report.sizes.model)
    table.cases = list(made.found.values())
    return table


class _Maker:
    """Gives each distinct list one case, and each distinct config.json one directory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._directories: dict[str, Path] = {}
        self.found: dict[tuple[object, ...], Case] = {}

    def add(self, name: str, rendered: Rendering, model: Model) -> str:
        """The name of the case with this list."""
        made, profile = rendered.plan, rendered.profile
        sizing = made.sizing
        assert sizing is not None
        checkpoint = next(c for c in model.checkpoints if c.repository == sizing.repository)
        content = json.dumps([config_json(model.name), quantization_config(checkpoint)])
        if content not in self._directories:
            target = self._folder / str(len(self._directories))
            self._directories[content] = write_checkpoint(target, model.name, checkpoint)
        platform, capability = _platform(profile)
        case = Case(
            name=name,
            platform=platform,
            capability=capability,
            memory=(profile.memory_mib or 0) * 2**20,
            arguments=_in_last_pod(engine_arguments(rendered), made, self._directories[content]),
            plan=made,
            rope=sizing.hf_overrides is not None,
        )
        return self.found.setdefault((case.arguments, platform, capability, made.gpus_per_pod), case).name


#: What may be asked of the engine besides serving the model.
_FEATURES: tuple[dict[str, Any], ...] = (
    {"speculation": {"method": "MTP"}},
    {"speculation": {"method": "MTP", "tokens": 3}},
    {"expertBalancing": {"mode": "Enabled"}},
    {"expertBalancing": {"mode": "Disabled"}},
    {
        "speculation": {"method": "MTP"},
        "expertBalancing": {"mode": "Enabled", "window": 200, "interval": 500},
    },
    {"args": {"speculative-config": '{"method":"ngram","num_speculative_tokens":4,"prompt_lookup_max":4}'}},
    {"args": {"no-enable-prefix-caching": ""}},
)
_ADAPTERS: list[dict[str, Any]] = [
    {"name": "law", "source": "hf://org/law", "rank": 20},
    {"name": "sql", "source": "pvc://adapters/sql"},
]


_Combination = tuple[AcceleratorProfile, Inventory, Model, dict[str, Any], dict[str, Any]]


def _combinations() -> Iterator[_Combination]:
    """(accelerator, nodes, model, what the spec says of the model, and of hardware and engine)."""
    catalog, models = load_catalog(), load_models()
    seen: set[tuple[str, str]] = set()
    for accelerator in catalog.names():
        profile = catalog.accelerator(accelerator)
        assert profile is not None
        nodes = read_inventory(f"{{nodes: [{{accelerator: {accelerator}, count: {_NODES}}}]}}", catalog)
        for name in models.names():
            model = models.find(name)
            assert model is not None
            for precision in model.precisions():
                yield profile, nodes, model, {"precision": precision.value}, {}
            if accelerator == _ROOMY:
                yield profile, nodes, model, {"kvCachePrecision": "fp8"}, {}
                if model.stretch:
                    yield profile, nodes, model, {"contextLength": model.stretch.up_to}, {}
            architecture = model.architecture.name
            if accelerator in _WITH_FEATURES and (accelerator, architecture) not in seen:
                seen.add((accelerator, architecture))
                yield from ((profile, nodes, model, spec, {"engine": engine}) for spec, engine in _features())


#: Accelerator, GPUs of a group over several of its nodes.
_WIDE = (("GB200", 16), ("H200", 16), ("MI300X", 16))


def _over_networks() -> Iterator[_Combination]:
    """Groups over every fabric with every all-to-all that it may have, chosen or asked for."""
    catalog, model = load_catalog(), load_models().find("deepseek-ai/DeepSeek-R1")
    assert model is not None
    for name, width in _WIDE:
        profile = catalog.accelerator(name)
        assert profile is not None
        for fabric in catalog.fabrics.profiles():
            if fabric.reach is Reach.NODE or not fabric.suits(profile.resource_name):
                continue
            nodes = read_inventory(
                f"{{nodes: [{{accelerator: {name}, count: {_NODES}, fabric: {fabric.name}}}]}}", catalog
            )
            hardware = {"gpusPerGroup": width, "fabric": fabric.name}
            for precision in model.precisions():
                yield profile, nodes, model, {"precision": precision.value}, {"hardware": hardware}
            for backend in catalog.fabrics.backends():
                # MoonEP takes unquantised models only, of which there is none of this size.
                if backend.name != "moonep":
                    asked = {"args": {"all2all-backend": backend.name}}
                    yield profile, nodes, model, {}, {"hardware": hardware, "engine": asked}


def _features() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(what the spec says of the model, and hardware and engine), of each feature."""
    yield {"kvCachePrecision": "nvfp4"}, {}
    yield from (({}, engine) for engine in _FEATURES)
    yield {"adapters": _ADAPTERS}, {}
    yield {"adapters": [{**one, "targetModules": ["q_proj", "o_proj"]} for one in _ADAPTERS]}, {}


def _platform(profile: AcceleratorProfile) -> tuple[str, int]:
    capability = profile.compute_capability
    if capability is None:
        return "cpu", 0
    return (capability, 0) if capability.startswith("gfx") else ("cuda", int(capability.replace(".", "")))


def _in_last_pod(arguments: tuple[str, ...], made: Plan, model: Path) -> tuple[str, ...]:
    """As the kubelet expands them. The name that clients use is the same for all, as it changes nothing else."""
    index = made.pods_per_group - 1
    values = {
        "POD_IP": f"127.10.1.{index + 1}",
        "LWS_LEADER_ADDRESS": "127.10.1.1",
        "LWS_WORKER_INDEX": str(index),
    }
    expanded = [str(model), *arguments[1:]]
    expanded[expanded.index("--served-model-name") + 1] = "served"
    for name, value in values.items():
        expanded = [argument.replace(f"$({name})", value) for argument in expanded]
    assert not [argument for argument in expanded if "$(" in argument]
    return tuple(expanded)
