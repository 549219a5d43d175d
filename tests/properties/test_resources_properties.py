"""Rendering is hashed, compared and replayed: it must depend on its input alone."""

import copy
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from factories.deployments import group_plan, model_deployment, profile_of, rendering
from factories.merging import json_merged
from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.cli.spec_changes import merge_patch
from moe_operator.planner.plan import Plan
from moe_operator.resources.engine_args import Balancing, balancing
from moe_operator.resources.group import build_group, parse_slot, render_template
from moe_operator.resources.revision import (
    build_revision,
    new_revision,
    read_revision,
    spec_hash,
    written_parts,
)

# Other work on the machine must not fail a test, nor chance make it pass.
_thorough = settings(max_examples=100, deadline=None, derandomize=True)

_word = st.text("abz09", min_size=1, max_size=6).map(lambda text: f"w-{text}")
_flags = st.dictionaries(
    _word, st.sampled_from(["", "1", "-1", "auto", '{"a": 1}', "$(POD_NAME)"]), max_size=6
)
_labels = st.dictionaries(_word, _word, max_size=4)
_plans = st.builds(
    group_plan,
    st.integers(1, 8),
    st.integers(1, 8),
    st.sampled_from([1, 2, 4, 8]),
    accelerator=st.sampled_from(["cpu", "B200", "H100", "MI300X"]),
    expert_parallel=st.booleans(),
)


@st.composite
def _specs(draw: st.DrawFn) -> dict[str, Any]:
    model: dict[str, Any] = {"name": draw(st.sampled_from(["org/a", "b"]))}
    if draw(st.booleans()):
        model["source"] = draw(st.sampled_from(["pvc://claim/x", "hf://org/a"]))
    return {
        "model": model,
        "engine": {
            "args": draw(_flags),
            "env": [{"name": name.upper(), "value": value} for name, value in sorted(draw(_labels).items())],
            "agent": draw(st.sampled_from(["Enabled", "Disabled"])),
        },
        "podTemplate": {"labels": draw(_labels), "nodeSelector": draw(_labels)},
    }


def _reordered(value: Any) -> Any:
    """The same object with the keys of every mapping in another order."""
    if isinstance(value, dict):
        return {key: _reordered(value[key]) for key in reversed(list(value))}
    return [_reordered(v) for v in value] if isinstance(value, list) else value


def _template(deployment: ModelDeployment, plan: Plan) -> dict[str, Any]:
    return render_template(rendering(deployment, plan))


@_thorough
@given(_specs(), _plans)
def test_the_same_input_gives_the_same_bytes(spec: dict[str, Any], plan: Plan) -> None:
    """A rendering that depended on the order of keys would make a revision of every manifest tool's own."""
    one, other = model_deployment(**copy.deepcopy(spec)), model_deployment(**_reordered(spec))
    assert spec_hash(one) == spec_hash(other)
    assert json.dumps(_template(one, plan), sort_keys=True) == json.dumps(
        _template(other, plan), sort_keys=True
    )


@_thorough
@given(_specs(), _plans, st.integers(0, 99), st.integers(0, 256), st.integers(0, 256))
def test_scaling_touches_no_pod(spec: dict[str, Any], plan: Plan, slot: int, low: int, replicas: int) -> None:
    """If it did, every scaling decision would restart every group."""
    one = model_deployment(**spec)
    other = model_deployment(
        **spec,
        replicas=replicas,
        scaling={"minGroups": low, "maxGroups": 256},
        objective={"timePerOutputToken": "50ms"},
        recovery={"startDeadline": f"{low + 1}m"},
    )
    groups = [build_group(d, new_revision(d, plan, _template(d, plan)), slot) for d in (one, other)]
    assert groups[0] == groups[1]


@_thorough
@given(_specs(), _plans, st.integers(0, 10**6))
def test_any_group_is_whole_and_traceable(spec: dict[str, Any], plan: Plan, slot: int) -> None:
    """Whatever the user wrote: the group is found by its slot, its pods by its name, and its GPUs add up."""
    deployment = model_deployment(**spec)
    revision = new_revision(deployment, plan, _template(deployment, plan))
    lws = build_group(deployment, revision, slot)
    assert parse_slot("tiny", lws["metadata"]["name"]) == slot
    workers = lws["spec"]["leaderWorkerTemplate"]
    pod = workers["workerTemplate"]
    assert pod == workers["leaderTemplate"]
    assert pod["metadata"]["labels"][names.LABEL_GROUP] == lws["metadata"]["name"]
    limits = pod["spec"]["containers"][0]["resources"].get("limits", {})
    resource = profile_of(plan.accelerator).resource_name
    if resource:
        assert int(limits[resource]) * workers["size"] == plan.width
    assert read_revision(json.loads(json.dumps(build_revision(deployment, revision)))) == revision


@_thorough
@given(_specs(), _specs())
def test_a_patch_from_any_spec_to_a_kept_one_finds_its_revision(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    """Lost: the way back, if a flag of the present spec stayed or the former one were kept otherwise than hashed."""
    present, former = model_deployment(**before), model_deployment(**after)
    kept = json.loads(json.dumps(written_parts(former.spec)))
    patched = json_merged(before, merge_patch(written_parts(present.spec), kept))
    assert spec_hash(model_deployment(**patched)) == spec_hash(former)


@_thorough
@given(_plans)
def test_ranks_are_counted_once(plan: Plan) -> None:
    """The ranks that the pods start and the ranks that vLLM waits for are the same number, in every mode."""
    deployment = model_deployment()
    arguments = new_revision(deployment, plan, _template(deployment, plan)).engine_arguments

    def value(flag: str, default: int) -> int:
        return int(arguments[arguments.index(flag) + 1]) if flag in arguments else default

    total = value("--data-parallel-size", 1)
    local = value("--data-parallel-size-local", total)
    assert local * plan.pods_per_group == total == plan.data
    if balancing(plan) is Balancing.HYBRID:
        assert value("--nnodes", 1) == plan.pods_per_group
    else:
        assert "--nnodes" not in arguments
