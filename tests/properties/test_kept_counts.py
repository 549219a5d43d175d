"""Counts and facts that are kept from look to look, against those made from scratch.

Lost if this fails: groups that are placed on GPUs which others hold, or that wait beside free ones, until the operator
is started anew.
"""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from factories.gpu_nodes import container, hgx_b200, pod
from moe_operator.catalog.accelerators import load_catalog
from moe_operator.planner.facts import SiteNames
from moe_operator.planner.inventory import NodeReader, inventory_from
from moe_operator.planner.pod_requests import DeviceCount, held_by_pods
from moe_operator.planner.resource_slices import SliceGpus

_NODES = ("n1", "n2", "n3", None)
_PHASES = ("Running", "Running", "Pending", "Succeeded", "Failed")
_CATALOG, _SITE = load_catalog(), SiteNames()


@st.composite
def _pod(draw: st.DrawFn) -> dict[str, Any]:
    containers = [container(draw(st.integers(0, 8)))]
    if draw(st.booleans()):
        containers.append(container(1, resource="rdma/ib"))
    return pod(draw(st.sampled_from(_NODES)), *containers, phase=draw(st.sampled_from(_PHASES)))


_LOOKS = st.lists(st.dictionaries(st.sampled_from("abcde"), st.none() | _pod(), max_size=5), max_size=8)
"""What is there in one look after the other, by uid; None: as in the look before it, if it was there."""


@given(_LOOKS)
def test_devices(looks: list[dict[str, Any]]) -> None:
    count, known = DeviceCount(), dict[str, Any]()
    for look in looks:
        now = {uid: known.get(uid) if one is None else one for uid, one in look.items()}
        known = {uid: one for uid, one in now.items() if one is not None}
        for uid, one in known.items():
            one["metadata"] = {"uid": uid}
        scratch = {node: held for node, held in held_by_pods(known.values()).items() if held}
        found = count.of(known.values())
        assert found == scratch
        for held in found.values():
            held["nvidia.com/gpu"] = 99  # the answer is the caller's


_GPUS = st.none() | st.builds(
    SliceGpus,
    st.just("nvidia.com/gpu"),
    st.integers(1, 8),
    st.integers(0, 8),
    st.just(()),
    st.none(),
    st.just(0),
)


@given(
    st.lists(
        st.dictionaries(st.sampled_from("abc"), st.tuples(st.booleans(), st.booleans(), _GPUS)), max_size=8
    )
)
def test_nodes(looks: list[dict[str, tuple[bool, bool, SliceGpus | None]]]) -> None:
    """Each look: nodes by name, whether they are the same object as before, and cordoned."""
    reader, known = NodeReader(_CATALOG, _SITE), dict[str, Any]()
    for look in looks:
        nodes = {}
        for name, (same, cordoned, _) in look.items():
            if same and name in known:
                nodes[name] = known[name]
            else:
                nodes[name] = hgx_b200(name, **{"nvidia.com/gpu.memory": "1" if cordoned else "183359"})
                nodes[name]["spec"] = {"unschedulable": cordoned}
        known = nodes
        slices = {name: gpus for name, (_, _, gpus) in look.items() if gpus is not None}
        found = reader.read(nodes.values(), slices)
        assert found == NodeReader(_CATALOG, _SITE).read(nodes.values(), slices)
        plain = inventory_from(nodes.values(), reader=reader)
        assert plain == inventory_from(nodes.values())
