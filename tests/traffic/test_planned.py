"""Planned changes while clients send on: none may cost a user a single answer.

Streams longer than the drain deadline are the exception, and counted apart.
"""

import dataclasses
import os
import signal

import pytest

from harness.deployments import engine_pods
from harness.install import install_operator
from harness.kubectl import apply, get, kubectl
from harness.leader import holder, leader_pod, operator_process
from harness.wait import wait_for
from tests.traffic.conftest import MIX, NAME, NAMESPACE, REQUESTS, Serve, manifest, run, scale, settled
from traffic.report import Report

pytestmark = pytest.mark.timeout(900)


def assert_nothing_lost(report: Report) -> None:
    assert report.counts.sent >= REQUESTS
    assert (report.counts.failed, report.counts.cut) == (0, 0), report.lost


def test_engine_arguments_change(serve: Serve) -> None:
    """A rollout with surge: the successor serves before the old group drains. Some streams outlast the drain."""
    serve()
    mix = dataclasses.replace(MIX, long_share=0.01)
    with run("arguments change", "1 → 2 → 1 groups", mix) as traffic:
        traffic.warm()
        apply(manifest(**{"max-num-seqs": "24"}), manager="traffic")
        traffic.mark("applied")
        wait_for("the rollout", lambda: settled(1), seconds=400, every=1)
        traffic.mark("settled")
        traffic.settle()
        report = traffic.finish(REQUESTS)
    assert_nothing_lost(report)


def test_image_changes(serve: Serve) -> None:
    serve()
    with run("image change", "1 → 2 → 1 groups") as traffic:
        traffic.warm()
        apply(manifest(image="vllm/vllm-openai-cpu:v0.32.0-mirrored"), manager="traffic")
        traffic.mark("applied")
        wait_for("the rollout", lambda: settled(1), seconds=400, every=1)
        traffic.mark("settled")
        traffic.settle()
        report = traffic.finish(REQUESTS)
    assert {p["spec"]["containers"][0]["image"] for p in engine_pods(NAME, NAMESPACE)} == {
        "vllm/vllm-openai-cpu:v0.32.0-mirrored"
    }
    assert_nothing_lost(report)


def test_scale_up_and_down(serve: Serve) -> None:
    serve()
    with run("scale 1 → 2 → 1", "1 → 2 → 1 groups") as traffic:
        traffic.warm()
        scale(2)
        traffic.mark("scaled to 2")
        wait_for("two groups", lambda: settled(2), seconds=400, every=1)
        traffic.mark("two groups")
        traffic.warm(traffic.load.sent + 60)
        scale(1)
        traffic.mark("scaled to 1")
        wait_for("one group", lambda: settled(1), seconds=200, every=1)
        traffic.mark("one group")
        traffic.settle()
        report = traffic.finish(REQUESTS)
    assert_nothing_lost(report)


def test_node_is_drained(serve: Serve) -> None:
    """`kubectl drain` of a node with pods of the group ends by itself."""
    serve()
    node = engine_pods(NAME, NAMESPACE)[0]["spec"]["nodeName"]
    try:
        with run("node drain", "1 → 2 → 1 groups") as traffic:
            traffic.warm()
            traffic.mark(f"kubectl drain {node}")
            kubectl(
                "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=400s", timeout=420
            )
            traffic.mark("drained")
            wait_for("the group elsewhere", lambda: settled(1), seconds=200, every=1)
            traffic.settle()
            report = traffic.finish(REQUESTS)
        assert node not in {p["spec"]["nodeName"] for p in engine_pods(NAME, NAMESPACE)}
        assert_nothing_lost(report)
    finally:
        kubectl("uncordon", node)


def test_operator_is_killed_and_upgraded(serve: Serve) -> None:
    serve()
    before = {p["metadata"]["uid"] for p in engine_pods(NAME, NAMESPACE)}
    with run("operator killed, then upgraded", "1 group") as traffic:
        traffic.warm()
        gone = holder()
        os.kill(operator_process(leader_pod()), signal.SIGKILL)
        traffic.mark("leader killed")
        wait_for("another leader", lambda: (now := holder()) and now != gone, seconds=60)
        traffic.mark("another leads")
        traffic.warm(traffic.load.sent + 60)
        traffic.mark("helm upgrade")
        install_operator(values=("log.level=debug",))
        traffic.mark("upgraded")
        found = get("deployment", "moe-operator", "moe-system")
        assert found is not None
        assert found["metadata"]["generation"] > 1
        traffic.settle()
        report = traffic.finish(REQUESTS)
    assert {p["metadata"]["uid"] for p in engine_pods(NAME, NAMESPACE)} == before
    assert_nothing_lost(report)
