"""Flags for what the engine does besides serving the model: drafts, balancing of experts, caching of prefixes, loading.

Users may override each by name, or single keys of a JSON flag by a dotted name.
"""

import json
from collections.abc import Iterator, Mapping

from moe_operator.planner.plan import Plan, Sizing
from moe_operator.resources.argument import Argument


def feature_arguments(plan: Plan, users: Mapping[str, str]) -> Iterator[Argument]:
    """What the plan gives; `users` are `engine.args`."""
    sizing = plan.sizing
    if sizing is None:
        return
    if sizing.prefix_caching and sizing.utilization:
        cost = "; costs this model one more recurrent state per request" if sizing.recurrent else ""
        yield _flag(
            "enable-prefix-caching", None, f"requests that begin alike share what is cached of it{cost}"
        )
    elif sizing.prefix_caching is False and not sizing.utilization and sizing.speculative_tokens:
        yield _flag(
            "no-enable-prefix-caching", None, "vLLM cannot draft on CPUs where recurrent states are shared"
        )
    if sizing.speculation:
        config = {"method": sizing.speculation, "num_speculative_tokens": sizing.speculative_tokens}
        yield _flag(
            "speculative-config",
            _json(config),
            "the model's prediction layers draft so many tokens a step, as engine.speculation says",
        )
    if sizing.balanced:
        yield from _balancing(sizing)
    elif plan.expert_parallel and sizing.experts_apart and "expert-placement-strategy" not in _plain(users):
        yield _flag("enable-ep-weight-filter", None, "each GPU reads only the experts that it will hold")
    if sizing.adapter_slots:
        yield from _adapters(sizing)


def _balancing(sizing: Sizing) -> Iterator[Argument]:
    yield _flag("enable-eplb", None, "experts are moved to where they keep GPUs evenly busy")
    config = {
        "window_size": sizing.balancing_window,
        "step_interval": sizing.balancing_interval,
        "num_redundant_experts": sizing.redundant_experts,
        "use_async": True,
    }
    copies = sizing.redundant_experts
    what = (
        f"{copies} copies of busy experts beside the experts themselves" if copies else "no copies of experts"
    )
    yield _flag(
        "eplb-config",
        _json(config),
        f"{what}; they are moved beside the serving, every {sizing.balancing_interval} steps by the use in the last"
        f" {sizing.balancing_window}",
    )


def _adapters(sizing: Sizing) -> Iterator[Argument]:
    yield _flag("enable-lora", None, "adapters are served beside the model")
    yield _flag("max-loras", sizing.adapter_slots, "adapters that are in GPU memory at a time")
    yield _flag("max-lora-rank", sizing.adapter_rank, "the smallest of vLLM's ranks that holds all adapters'")


def with_keys(flags: Mapping[str, Argument]) -> dict[str, Argument]:
    """Dotted flags put into the JSON flag that they are keys of, where there is one: vLLM takes the last of the two
    whole."""
    found = dict(flags)
    for name, one in flags.items():
        plain, dot, key = name.partition(".")
        parent = found.get(plain.replace("_", "-"))
        if not dot or parent is None or parent.value is None:
            continue
        try:
            value = json.loads(parent.value)
        except ValueError:
            continue
        value[key.replace("-", "_")] = _value(one.value)
        reason = f"{parent.reason}; {key} {one.reason}"
        found[parent.flag] = Argument(parent.flag, _json(value), reason, joined=True)
        del found[name]
    return found


def _value(text: str | None) -> object:
    try:
        return json.loads(text or "true")
    except ValueError:
        return text


def _plain(users: Mapping[str, str]) -> set[str]:
    return {name.replace("_", "-") for name in users}


def _json(value: Mapping[str, object]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _flag(name: str, value: object, reason: str) -> Argument:
    return Argument(name, None if value is None else str(value), reason, joined=True)
