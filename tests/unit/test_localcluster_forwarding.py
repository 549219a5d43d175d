"""Where connections to a ClusterIP go: a wrong choice sends requests to pods that cannot serve them."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from localcluster.netd.forwarder import choose, wanted_listeners
from localcluster.netd.table import Endpoint, ServiceTable, usable

KEY = ("ns", "web")


def service(ip: str, **spec: Any) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}]
    body = {"clusterIP": ip, "clusterIPs": [ip], "ports": ports} | spec
    return {"metadata": {"name": "web", "namespace": "ns"}, "spec": body}


def endpoint_slice(
    *endpoints: tuple[str, dict[str, bool]], port: int = 8000, kind: str = "IPv4"
) -> dict[str, Any]:
    return {
        "metadata": {"name": "web-x", "namespace": "ns", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": kind,
        "endpoints": [
            {"addresses": [address], "conditions": conditions} for address, conditions in endpoints
        ],
        "ports": [
            {"name": "http", "port": port, "protocol": "TCP"},
            {"name": "dns", "port": 5353, "protocol": "UDP"},
        ],
    }


READY = {"ready": True, "serving": True, "terminating": False}
STARTING = {"ready": False, "serving": False, "terminating": False}
LEAVING = {"ready": False, "serving": True, "terminating": True}
DEAD = {"ready": False, "serving": False, "terminating": True}


def listeners(*endpoints: tuple[str, dict[str, bool]], ip: str = "10.96.3.4") -> dict[Any, Any]:
    table = ServiceTable()
    table.set_service(KEY, service(ip))
    table.set_slice(("ns", "web-x"), endpoint_slice(*endpoints))
    return wanted_listeners(table, KEY)


def test_connections_go_to_ready_endpoints_only() -> None:
    found = listeners(("10.244.0.1", READY), ("10.244.0.2", STARTING), ("10.244.0.3", LEAVING))
    assert found == {("10.96.3.4", 80): [("10.244.0.1", 8000)]}


def test_a_service_without_usable_endpoints_has_no_listener() -> None:
    """So that clients are refused at once instead of hanging."""
    assert listeners(("10.244.0.2", STARTING), ("10.244.0.4", DEAD)) == {}
    assert listeners() == {}


def test_the_last_pods_still_serve_while_they_terminate() -> None:
    assert listeners(("10.244.0.3", LEAVING), ("10.244.0.4", DEAD)) == {
        ("10.96.3.4", 80): [("10.244.0.3", 8000)]
    }


def test_missing_conditions_count_as_ready() -> None:
    assert listeners(("10.244.0.1", {})) == {("10.96.3.4", 80): [("10.244.0.1", 8000)]}


def test_headless_services_and_other_address_families_have_no_listener() -> None:
    assert listeners(("10.244.0.1", READY), ip="None") == {}
    table = ServiceTable()
    table.set_service(KEY, service("10.96.3.4"))
    table.set_slice(("ns", "web-x"), endpoint_slice(("fd00::1", READY), kind="IPv6"))
    assert wanted_listeners(table, KEY) == {}


def test_an_endpoint_in_two_slices_is_counted_once() -> None:
    """The controller may list a pod twice while it moves it; it must not get twice the share."""
    table = ServiceTable()
    table.set_service(KEY, service("10.96.3.4"))
    for name in ("web-x", "web-y"):
        table.set_slice(("ns", name), endpoint_slice(("10.244.0.1", READY)))
    assert wanted_listeners(table, KEY) == {("10.96.3.4", 80): [("10.244.0.1", 8000)]}


def test_slices_may_come_before_their_service_and_go_after_it() -> None:
    table = ServiceTable()
    assert table.set_slice(("ns", "web-x"), endpoint_slice(("10.244.0.1", READY))) == {KEY}
    assert wanted_listeners(table, KEY) == {}
    table.set_service(KEY, service("10.96.3.4"))
    assert len(wanted_listeners(table, KEY)) == 1
    table.set_service(KEY, None)
    assert wanted_listeners(table, KEY) == {}
    assert table.set_slice(("ns", "web-x"), None) == {KEY}
    assert table.set_slice(("ns", "web-x"), None) == set()


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=6))
def test_a_pod_that_does_not_serve_is_never_usable(conditions: list[tuple[bool, bool, bool]]) -> None:
    endpoints = [
        Endpoint(f"10.244.0.{n}", None, ready, serving or ready, terminating)
        for n, (ready, serving, terminating) in enumerate(conditions)
    ]
    chosen = usable(endpoints)
    assert all(each.serving for each in chosen)
    if any(each.ready for each in endpoints):
        assert chosen == [each for each in endpoints if each.ready]


def test_every_endpoint_gets_its_share_of_connections() -> None:
    backends = [(f"10.244.0.{n}", 8000) for n in range(4)]
    rng = random.Random(1)
    counts = dict.fromkeys(backends, 0)
    for _ in range(4000):
        counts[choose(backends, rng)] += 1
    assert all(850 < count < 1150 for count in counts.values()), counts
