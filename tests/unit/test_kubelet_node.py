"""Nodes, their addresses and figures as other programs read them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kubelet_contract import row
from localcluster.kubelet import authz, metrics, nodespec, oom, processes, provisioner
from localcluster.kubelet.control import Control
from localcluster.kubelet.metrics import Target
from localcluster.kubelet.nodespec import AddressPool, NodeNetwork, NodesError
from localcluster.kubelet.prepare import oom_score_adj


@row("node-object")
def test_a_node_is_what_its_entry_says() -> None:
    (spec,) = nodespec.parse(
        [
            {
                "name": "gpu-0",
                "labels": {"nvidia.com/gpu.product": "NVIDIA-B200", "x": True},
                "capacity": {"nvidia.com/gpu": 8},
                "allocatable": {"cpu": 60},
                "taints": [{"key": "k", "effect": "NoSchedule"}],
            }
        ]
    )
    network = NodeNetwork.of("10.244.0.0/16", 1)
    node = nodespec.node_object(spec, network)
    assert node["metadata"]["labels"]["kubernetes.io/hostname"] == "gpu-0"
    assert node["metadata"]["labels"]["x"] == "true"
    assert node["spec"] == {
        "podCIDR": "10.244.2.0/24",
        "podCIDRs": ["10.244.2.0/24"],
        "taints": [{"key": "k", "effect": "NoSchedule"}],
    }
    now = datetime.now(UTC)
    status = nodespec.node_status(spec, network, "v1.36.3", "boot", now, now)
    assert status["capacity"]["nvidia.com/gpu"] == status["allocatable"]["nvidia.com/gpu"] == "8"
    assert (status["capacity"]["cpu"], status["allocatable"]["cpu"]) == ("64", "60")
    assert status["addresses"][0] == {"type": "InternalIP", "address": "10.244.2.1"}
    assert status["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 10250}}
    assert {entry["type"]: entry["status"] for entry in status["conditions"]}["Ready"] == "True"


@row("node-object")
@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "non-empty list"),
        ([{"labels": {}}], "node number 1 needs a name"),
        ([{"name": "a", "gpus": 8}], r"node a: unknown keys \['gpus'\]"),
        ([{"name": "a"}, {"name": "a"}], "names must differ"),
    ],
)
def test_a_wrong_list_of_nodes_is_refused(document: object, words: str) -> None:
    with pytest.raises(NodesError, match=words):
        nodespec.parse(document)


@row("pod-address")
def test_addresses_are_not_used_again_at_once() -> None:
    """A client that still holds a dead pod's address must not reach its successor."""
    pool = AddressPool(NodeNetwork.of("10.244.0.0/16", 0))
    first = pool.take()
    assert first == "10.244.1.2"
    pool.give_back(first)
    assert pool.take() == "10.244.1.3"
    assert pool.take("10.244.1.9") == "10.244.1.9"
    taken = {pool.take() for _ in range(251)}
    assert first in taken
    assert "10.244.1.9" not in taken
    with pytest.raises(NodesError, match="253"):
        pool.take()
    with pytest.raises(NodesError, match="no /24 left for node number 256"):
        NodeNetwork.of("10.244.0.0/16", 255)


@row("resource-metrics")
def test_the_figures_page() -> None:
    target = Target("n", "p", "c", 1, 1700000000.0)
    page = metrics.render({target: processes.Usage(1.5, 4096)}, 7.25, 1700000001000)
    assert (
        'container_memory_working_set_bytes{container="c",namespace="n",pod="p"} 4096 1700000001000\n' in page
    )
    assert 'pod_cpu_usage_seconds_total{namespace="n",pod="p"} 1.5 1700000001000\n' in page
    assert "node_cpu_usage_seconds_total 7.25 1700000001000\n" in page
    assert page.count("# TYPE ") == 8


@row("resource-metrics")
def test_memory_and_time_of_a_whole_tree_of_processes() -> None:
    code = (
        "import subprocess,sys\n"
        "child=subprocess.Popen([sys.executable,'-c','a=bytearray(50<<20)\\n"
        "for i in range(0,len(a),4096): a[i]=1\\nprint(1,flush=True)\\ninput()'],stdin=subprocess.PIPE)\n"
        "input()\nchild.communicate()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        snapshot = processes.Snapshot()
        tree = snapshot.tree(process.pid)
        usage = processes.usage(process.pid, snapshot)
        resident = snapshot.resident_bytes(tree)
        process.communicate("\n")
    assert len(tree) == 2
    assert 50 * 2**20 < usage.memory_bytes < resident < 200 * 2**20
    assert usage.cpu_seconds > 0
    assert processes.Snapshot().tree(process.pid) == []


@row("resource-metrics")
async def test_figures_are_not_taken_twice_within_seconds_unless_containers_change() -> None:
    """Reading an engine's memory holds it up for a third of a second; three scrapers must not triple that."""
    meter = metrics.Meter()
    own = Target("n", "p", "c", os.getpid(), 1.0)
    first, second = await asyncio.gather(meter.page([own]), meter.page([own]))
    assert first == second
    assert await meter.page([own]) == first
    other = await meter.page([own, Target("n", "p", "d", os.getpid(), 1.0)])
    assert 'container="d"' in other


@row("oom-killed")
def test_memory_over_the_limit_is_seen() -> None:
    snapshot = processes.Snapshot()
    assert metrics.memory_share(os.getpid(), 2**20, snapshot) > 1
    assert 0 < metrics.memory_share(os.getpid(), 2**40, snapshot) < 0.01


@row("oom-killed")
def test_only_a_kill_by_the_kernel_counts_as_out_of_memory(tmp_path: Path) -> None:
    """A wrong OOMKilled would send people to look for memory that was never short."""
    counts = tmp_path / "vmstat"
    counts.write_text("nr_free_pages 1\noom_kill 7\n")
    kills = oom.KernelKills(counts)
    kills.sample()
    assert not kills.happened()
    counts.write_text("oom_kill 8\n")
    kills.sample()
    assert kills.happened()
    assert oom.kernel_kills("no such line") == 0
    assert oom.kernel_kills(Path("/proc/vmstat").read_text()) >= 0


@row("oom-killed")
def test_best_effort_pods_go_first() -> None:
    container = {"resources": {"requests": {"memory": "32Gi"}}}
    node = 64 * 2**30
    assert oom_score_adj({"status": {"qosClass": "BestEffort"}}, {}, node) == 1000
    assert oom_score_adj({"status": {"qosClass": "Burstable"}}, container, node) == 500
    assert oom_score_adj({"status": {"qosClass": "Guaranteed"}}, container, node) == 2


@row("server-access")
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/metrics/resource", "metrics"),
        ("/containerLogs/a/b/c", "proxy"),
        ("/run/a/b/c", "proxy"),
        ("/healthz", "healthz"),
    ],
)
def test_each_path_needs_its_own_permission(path: str, expected: str) -> None:
    assert authz.subresource(path) == expected


@row("server-access")
def test_a_certificate_names_its_user_and_groups() -> None:
    subject = ((("commonName", "kube-apiserver"),), (("organizationName", "system:masters"),))
    assert authz.certificate_user({"subject": subject}) == {
        "username": "kube-apiserver",
        "groups": ["system:masters", "system:authenticated"],
    }


@row("volume-folders")
def test_a_claim_gets_a_volume_made_for_it() -> None:
    claim = {
        "metadata": {"name": "c", "namespace": "n", "uid": "u"},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "5Gi"}}},
    }
    volume = provisioner.volume_for(claim, Path("/x"))
    assert volume["spec"]["claimRef"]["uid"] == "u"
    assert volume["spec"]["capacity"] == {"storage": "5Gi"}
    assert volume["spec"]["accessModes"] == ["ReadWriteMany"]


@row("node-lifecycle")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{", "not understood"),
        (b'{"op":"x"}', "unknown op 'x'; known: heartbeats, kill-pods, node-fail"),
        (b'{"op":"node-fail","node":"n"}', "no node 'n'"),
        (b'{"op":"node-fail"}', "KeyError: 'node'"),
        (b'{"op":"signal","namespace":"a","pod":"b","signal":"KILL"}', "no pod a/b"),
    ],
)
async def test_a_wrong_control_request_is_answered_with_the_reason(line: bytes, words: str) -> None:
    answer = await Control({}).answer(line)
    assert answer["ok"] is False
    assert words in answer["error"]
