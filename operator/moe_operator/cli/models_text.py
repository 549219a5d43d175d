"""What `kubectl moe models` prints. Pure: models in, data and text out."""

from collections.abc import Iterable
from typing import Any

from moe_operator.catalog.models.architecture import (
    AttentionCache,
    Cache,
    Component,
    LatentCache,
    Section,
    StateCache,
)
from moe_operator.catalog.models.cache_bytes import request_bytes, token_bytes
from moe_operator.catalog.models.model import Checkpoint, Model
from moe_operator.catalog.models.scheme import ELEMENT_BYTES
from moe_operator.catalog.models.storage import checkpoint_bytes
from moe_operator.cli.tables import table


def list_models(models: Iterable[Model]) -> str:
    """One line per model. A precision that several repositories have shows the first one's size."""
    header = ("NAME", "PARAMETERS", "ACTIVE", "PRECISIONS (GB)", "CONTEXT", "KV KiB/TOKEN", "LICENCE")
    return table(header, [_row(model) for model in models])


def model_data(model: Model) -> dict[str, Any]:
    """One model as plain data, for `-o json` and `-o yaml`: bytes, parameters, tokens."""
    architecture = model.architecture
    element = _element(model)
    data: dict[str, Any] = {
        "name": model.name,
        "aliases": list(model.aliases),
        "licence": model.licence,
        "architecture": architecture.name,
        "approximate": model.approximate,
        "parameters": architecture.total_parameters,
        "activeParameters": architecture.active_parameters,
        "parametersByComponent": _by_component(model),
        "layers": architecture.layers,
        "contextLength": architecture.context_length,
        "keyValueBytesPerToken": float(_per_token(model)),
        "bytesPerRequest": sum(request_bytes(cache, element) for cache in _main_caches(model)),
        "caches": [_cache(cache, element) for cache in architecture.caches],
        "checkpoints": [_checkpoint(model, checkpoint) for checkpoint in model.checkpoints],
        "parsers": {"toolCall": model.parsers.tool_call, "reasoning": model.parsers.reasoning},
        "multimodal": dict(model.multimodal),
    }
    if architecture.experts:
        experts = architecture.experts
        data["experts"] = {
            "count": experts.count,
            "active": experts.active,
            "shared": experts.shared,
            "layers": experts.layers,
            "parameters": experts.parameters,
        }
    if model.stretch:
        data["ropeScaling"] = {"type": model.stretch.type.value, "upTo": model.stretch.up_to}
    return data


def describe_model(model: Model) -> str:
    """One model in detail."""
    data = model_data(model)
    lines = [model.name]

    def line(label: str, value: str | None) -> None:
        if value:
            lines.append(f"  {label:<13}{value}")

    line("aliases", ", ".join(model.aliases))
    line("architecture", f"{model.architecture.name}, {model.architecture.layers} layers")
    line("licence", model.licence)
    sizes = f"{_billions(data['parameters'])} parameters, {_billions(data['activeParameters'])} active"
    line("size", sizes + (" (published totals, not counted)" if model.approximate else ""))
    if experts := model.architecture.experts:
        shared = f", {experts.shared} shared" if experts.shared else ""
        line(
            "experts", f"{experts.count} in each of {experts.layers} layers, {experts.active} active{shared}"
        )
    stretch = f", up to {model.stretch.up_to} with {model.stretch.type.value}" if model.stretch else ""
    line("context", f"{model.architecture.context_length} tokens{stretch}")
    line("parsers", ", ".join(f"{kind}: {name}" for kind, name in data["parsers"].items() if name))
    line("multimodal", ", ".join(f"{kind}: {number}" for kind, number in model.multimodal))
    checkpoints = [
        (
            c["precision"],
            c["repository"] or "-",
            _gigabytes(c["bytes"]),
            c["keyValueCache"] or "-",
            ", ".join(c["without"]) or "-",
        )
        for c in data["checkpoints"]
    ]
    lines += ["", table(("PRECISION", "REPOSITORY", "GB", "KV CACHE", "WITHOUT"), checkpoints)]
    sections = [s.value for s in Section if s.value in data["parametersByComponent"]]
    weights = [
        (section, component, _billions(number))
        for section in sections
        for component, number in data["parametersByComponent"][section].items()
    ]
    lines += ["", table(("SECTION", "COMPONENT", "PARAMETERS"), weights)]
    caches = [
        (c["section"], c["kind"], str(c["layers"]), _kib(c["bytesPerToken"]), _mib(c["bytesPerRequest"]))
        for c in data["caches"]
    ]
    header = ("SECTION", "CACHE", "LAYERS", "KiB/TOKEN", "MiB/REQUEST")
    lines += ["", table(header, caches)]
    return "\n".join(lines)


def _row(model: Model) -> tuple[str, ...]:
    precisions = []
    for precision in model.precisions():
        checkpoint = model.checkpoint(precision)
        assert checkpoint is not None
        precisions.append(f"{precision.value} {_gigabytes(checkpoint_bytes(model, checkpoint))}")
    return (
        model.name,
        ("~" if model.approximate else "") + _billions(model.architecture.total_parameters),
        _billions(model.architecture.active_parameters) if model.architecture.experts else "dense",
        ", ".join(precisions),
        str(model.architecture.context_length),
        _kib(float(_per_token(model))),
        model.licence or "-",
    )


def _element(model: Model) -> int:
    return ELEMENT_BYTES[model.architecture.dtype]


def _main_caches(model: Model) -> list[Cache]:
    return [cache for cache in model.architecture.caches if _section(cache) is Section.MAIN]


def _per_token(model: Model) -> float:
    return float(sum(token_bytes(cache, _element(model)) for cache in _main_caches(model)))


def _by_component(model: Model) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for section in Section:
        for component in Component:
            number = model.architecture.parameters(component, section=section)
            if number:
                found.setdefault(section.value, {})[component.value] = number
    return found


def _checkpoint(model: Model, checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "precision": checkpoint.precision.value,
        "repository": checkpoint.repository,
        "bytes": checkpoint_bytes(model, checkpoint),
        "keyValueCache": checkpoint.kv_cache,
        "without": sorted(section.value for section in checkpoint.without),
    }


def _cache(cache: Cache, element: int) -> dict[str, Any]:
    return {
        "section": _section(cache).value,
        "kind": _kind(cache),
        "layers": cache.layers,
        "bytesPerToken": float(token_bytes(cache, element)),
        "bytesPerRequest": request_bytes(cache, element),
    }


def _section(cache: Cache) -> Section:
    return Section.MAIN if isinstance(cache, StateCache) else cache.section


def _kind(cache: Cache) -> str:
    match cache:
        case AttentionCache(window=int(window)):
            return f"attention, last {window} tokens"
        case AttentionCache(chunk=int(chunk)):
            return f"attention, chunks of {chunk} tokens"
        case AttentionCache():
            return "attention"
        case LatentCache():
            indexer = ", with indexer" if cache.indexer_layers else ""
            shared = f", one vector per {cache.compression} tokens" if cache.compression > 1 else ""
            return f"latent{shared}{indexer}"
    return "linear attention"


def _billions(number: int) -> str:
    return f"{number / 1e9:.2f}B"


def _gigabytes(number: int) -> str:
    return f"{number / 1e9:.1f}"


def _kib(number: float) -> str:
    return f"{number / 2**10:.1f}" if number else "-"


def _mib(number: int) -> str:
    return f"{number / 2**20:.1f}" if number else "-"
