"""What pods learn from cluster DNS: a wrong answer here makes groups wait for a leader they cannot find."""

from __future__ import annotations

from typing import Any

import dnslib  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from localcluster.netd.records import Answer, Rcode, Record, resolve
from localcluster.netd.table import ServiceTable
from localcluster.netd.wire import MAX_UDP_SIZE, reply_to


def service(name: str, ip: str = "None", namespace: str = "ns", **spec: Any) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80, "protocol": "TCP"}]
    body = {"clusterIP": ip, "clusterIPs": [ip], "ports": ports} | spec
    return {"metadata": {"name": name, "namespace": namespace}, "spec": body}


def endpoint(address: str, hostname: str | None = None, **conditions: bool | None) -> dict[str, Any]:
    named = {"hostname": hostname} if hostname else {}
    return {"addresses": [address], "conditions": conditions or {"ready": True}} | named


def endpoint_slice(
    of: str, *endpoints: dict[str, Any], port: int = 8000, namespace: str = "ns"
) -> dict[str, Any]:
    return {
        "metadata": {"name": f"{of}-x", "namespace": namespace, "labels": {"kubernetes.io/service-name": of}},
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
    }


@pytest.fixture
def table() -> ServiceTable:
    known = ServiceTable()
    known.set_service(("ns", "web"), service("web", "10.96.3.4"))
    known.set_service(("ns", "outside"), service("outside", type="ExternalName", externalName="example.org"))
    known.set_service(("ns", "empty"), service("empty"))
    known.set_service(("ns", "group"), service("group", publishNotReadyAddresses=True))
    known.set_slice(
        ("ns", "group-x"),
        endpoint_slice(
            "group",
            endpoint("10.244.0.5", "group-0"),
            endpoint("10.244.0.6", "group-0-1"),
            endpoint("10.244.0.7", "gone", ready=False),
        ),
    )
    return known


def addresses(answer: Answer) -> list[str]:
    return [record.value for record in answer.records if record.kind == "A"]


def test_a_worker_finds_its_leader_by_hostname(table: ServiceTable) -> None:
    answer = resolve("group-0.group.ns.svc.cluster.local.", "A", table)
    assert answer == Answer(Rcode.NOERROR, (Record("group-0.group.ns.svc.cluster.local", "A", "10.244.0.5"),))


def test_names_are_compared_without_regard_to_case(table: ServiceTable) -> None:
    assert addresses(resolve("GROUP-0.Group.NS.svc.Cluster.Local", "A", table)) == ["10.244.0.5"]


def test_a_headless_service_has_the_addresses_of_its_ready_endpoints_only(table: ServiceTable) -> None:
    assert addresses(resolve("group.ns.svc.cluster.local", "A", table)) == ["10.244.0.5", "10.244.0.6"]
    assert resolve("gone.group.ns.svc.cluster.local", "A", table).rcode is Rcode.NXDOMAIN


def test_an_endpoint_that_leaves_is_forgotten(table: ServiceTable) -> None:
    table.set_slice(("ns", "group-x"), endpoint_slice("group", endpoint("10.244.0.6", "group-0-1")))
    assert resolve("group-0.group.ns.svc.cluster.local", "A", table).rcode is Rcode.NXDOMAIN
    table.set_slice(("ns", "group-x"), None)
    assert resolve("group.ns.svc.cluster.local", "A", table) == Answer(Rcode.NOERROR)


def test_a_service_of_several_slices_has_the_endpoints_of_all(table: ServiceTable) -> None:
    more = endpoint_slice("group", endpoint("10.244.1.9", "group-0-2"))
    table.set_slice(("ns", "group-y"), more)
    assert "10.244.1.9" in addresses(resolve("group.ns.svc.cluster.local", "A", table))
    assert addresses(resolve("group-0-2.group.ns.svc.cluster.local", "A", table)) == ["10.244.1.9"]


def test_an_endpoint_without_hostname_is_named_after_its_address(table: ServiceTable) -> None:
    table.set_slice(("ns", "empty-x"), endpoint_slice("empty", endpoint("10.244.2.2")))
    assert addresses(resolve("10-244-2-2.empty.ns.svc.cluster.local", "A", table)) == ["10.244.2.2"]


def test_a_cluster_ip_is_answered_with_or_without_endpoints(table: ServiceTable) -> None:
    assert addresses(resolve("web.ns.svc.cluster.local", "A", table)) == ["10.96.3.4"]


@pytest.mark.parametrize("kind", ["AAAA", "TXT", "SRV"])
def test_an_existing_name_without_such_records_is_empty_and_not_absent(
    table: ServiceTable, kind: str
) -> None:
    """NXDOMAIN for AAAA would make resolvers give up on the A records as well."""
    assert resolve("web.ns.svc.cluster.local", kind, table) == Answer(Rcode.NOERROR)


@pytest.mark.parametrize(
    "name",
    [
        "nothing.ns.svc.cluster.local",
        "web.other.svc.cluster.local",
        "x.web.ns.svc.cluster.local",
        "web.ns",
        "example.org",
        "example.org.ns.svc.cluster.local",
        "a.b.c.d.e.svc.cluster.local",
        "other.svc.cluster.local",
        ".",
    ],
)
def test_everything_else_does_not_exist(table: ServiceTable, name: str) -> None:
    assert resolve(name, "A", table).rcode is Rcode.NXDOMAIN


def test_an_external_name_is_an_alias(table: ServiceTable) -> None:
    [record] = resolve("outside.ns.svc.cluster.local", "A", table).records
    assert (record.kind, record.value) == ("CNAME", "example.org")


def test_ports_of_a_headless_service_are_found_by_srv(table: ServiceTable) -> None:
    answer = resolve("_http._tcp.group.ns.svc.cluster.local", "SRV", table)
    assert {(record.value, record.port) for record in answer.records} == {
        ("group-0.group.ns.svc.cluster.local", 8000),
        ("group-0-1.group.ns.svc.cluster.local", 8000),
    }
    assert {record.value for record in answer.additional} == {"10.244.0.5", "10.244.0.6"}
    assert resolve("_other._tcp.group.ns.svc.cluster.local", "SRV", table).rcode is Rcode.NXDOMAIN


def test_addresses_lead_back_to_names(table: ServiceTable) -> None:
    [pod] = resolve("5.0.244.10.in-addr.arpa", "PTR", table).records
    assert pod.value == "group-0.group.ns.svc.cluster.local"
    [web] = resolve("4.3.96.10.in-addr.arpa.", "PTR", table).records
    assert web.value == "web.ns.svc.cluster.local"
    assert resolve("9.9.9.9.in-addr.arpa", "PTR", table).rcode is Rcode.NXDOMAIN


def test_pod_names_spell_their_address(table: ServiceTable) -> None:
    assert addresses(resolve("10-244-0-5.ns.pod.cluster.local", "A", table)) == ["10.244.0.5"]
    assert resolve("10-244-0-555.ns.pod.cluster.local", "A", table).rcode is Rcode.NXDOMAIN


def test_the_reply_on_the_wire_repeats_id_and_question(table: ServiceTable) -> None:
    query = dnslib.DNSRecord.question("group-0.group.ns.svc.cluster.local")
    reply = dnslib.DNSRecord.parse(reply_to(query.pack(), table, udp=True))
    assert reply.header.id == query.header.id
    assert reply.header.qr == 1
    assert str(reply.q.qname) == "group-0.group.ns.svc.cluster.local."
    assert [str(each.rdata) for each in reply.rr] == ["10.244.0.5"]


def test_an_absent_name_comes_with_the_time_for_which_to_believe_it(table: ServiceTable) -> None:
    query = dnslib.DNSRecord.question("nothing.ns.svc.cluster.local")
    reply = dnslib.DNSRecord.parse(reply_to(query.pack(), table, udp=True))
    assert reply.header.rcode == dnslib.RCODE.NXDOMAIN
    assert [dnslib.QTYPE[each.rtype] for each in reply.auth] == ["SOA"]


def test_a_reply_too_large_for_udp_asks_for_tcp() -> None:
    """A Service of many pods: without the truncation bit, a client would take a part for the whole."""
    table = ServiceTable()
    table.set_service(("ns", "big"), service("big"))
    table.set_slice(("ns", "big-x"), endpoint_slice("big", *(endpoint(f"10.244.1.{n}") for n in range(100))))
    query = dnslib.DNSRecord.question("big.ns.svc.cluster.local")
    over_udp = reply_to(query.pack(), table, udp=True)
    assert over_udp is not None
    assert len(over_udp) <= 512
    short = dnslib.DNSRecord.parse(over_udp)
    assert short.header.tc == 1
    over_tcp = reply_to(query.pack(), table, udp=False)
    whole = dnslib.DNSRecord.parse(over_tcp)
    assert (whole.header.tc, len(whole.rr)) == (0, 100)
    query.add_ar(dnslib.EDNS0(udp_len=MAX_UDP_SIZE))
    extended = dnslib.DNSRecord.parse(reply_to(query.pack(), table, udp=True))
    assert (extended.header.tc, len(extended.rr)) == (0, 100)


@given(st.binary(max_size=600))
def test_no_datagram_can_break_the_server(message: bytes) -> None:
    """One malformed packet must not end name resolution for every pod."""
    reply = reply_to(message, ServiceTable(), udp=True)
    if reply is not None:
        parsed = dnslib.DNSRecord.parse(reply)
        assert parsed.header.id == int.from_bytes(message[:2], "big")
        assert len(reply) <= MAX_UDP_SIZE


def test_replies_are_not_answered(table: ServiceTable) -> None:
    """Two servers that answer each other's replies would never stop."""
    query = dnslib.DNSRecord.question("web.ns.svc.cluster.local").pack()
    reply = reply_to(query, table, udp=True)
    assert reply is not None
    assert reply_to(reply, table, udp=True) is None
