"""Sizes in the operator: what fits is said with numbers, what does not is told apart from what has no room."""

import json
from typing import Any

from factories.dra import device_class
from factories.gpu_nodes import claim, dra_only, resource_slice
from fakecluster.harness import NAMESPACE, Harness, manifest, play
from moe_operator.api import names, reasons
from moe_operator.controller.kube import (
    CONFIG_MAP,
    DEVICE_CLASS,
    LEADER_WORKER_SET,
    NODE,
    POD,
    RESOURCE_CLAIM,
    RESOURCE_SLICE,
    Obj,
)

PRODUCT = "nvidia.com/gpu.product"
QWEN = {"name": "Qwen/Qwen3.5-397B-A17B", "precision": "nvfp4"}


def _sized(model: dict[str, Any], **hardware: Any) -> Obj:
    return manifest(model=model, hardware={"accelerator": "B200", **hardware})


def _reason(h: Harness, type_: str) -> tuple[str, str] | None:
    found = h.condition(type_)
    return (found["status"], found["reason"]) if found else None


def _message(h: Harness, type_: str) -> str:
    return str((h.condition(type_) or {}).get("message"))


def _busy(h: Harness) -> list[Obj]:
    """Pods of somebody else that hold all GPUs of all B200 nodes."""
    held = {"nvidia.com/gpu": "8"}
    nodes = [n for n in h.world.server.list(NODE) if n["metadata"]["labels"][PRODUCT] == "NVIDIA-B200"]
    return [
        h.world.server.create(
            POD,
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": f"training-{node['metadata']['name']}", "namespace": "research"},
                "spec": {
                    "nodeName": node["metadata"]["name"],
                    "containers": [
                        {"name": names.ENGINE_CONTAINER, "image": "train", "resources": {"limits": held}}
                    ],
                },
            },
            "research",
        )
        for node in nodes
    ]


def test_the_status_says_what_each_gpu_will_hold() -> None:
    """Lost: the answer to "why this width", which no log of the engine gives before it has run out of memory."""

    async def scenario(h: Harness) -> None:
        h.apply(_sized(QWEN))
        await h.serve()
        plan = h.status()["plan"]
        assert plan["precision"] == "nvfp4"
        assert (plan["width"], plan["tensor"], plan["expertParallel"]) in ((4, 1, 4), (8, 1, 8))
        memory = plan["memory"]
        parts = ("weightsMib", "kvCacheMib", "buffersMib", "headroomMib")
        assert abs(sum(memory[part] for part in parts) - memory["capacityMib"]) <= len(parts)
        assert memory["capacityMib"] == 183359
        assert plan["kvCacheTokens"] > 1_000_000
        assert "hold weights" in _message(h, reasons.PLANNED)
        arguments = h.status()["engineArguments"]
        assert arguments[0] == "nvidia/Qwen3.5-397B-A17B-NVFP4"
        assert "--reasoning-parser=qwen3" in arguments

    play(scenario)


def test_what_never_fits_is_refused_with_what_would() -> None:
    """Lost: hours, on pods that load for minutes and then run out of memory, again and again."""

    async def scenario(h: Harness) -> None:
        h.apply(_sized({**QWEN, "precision": "bf16"}, gpusPerGroup=4))
        await h.until(lambda: _reason(h, reasons.STALLED) == ("True", reasons.DOES_NOT_FIT), 10)
        assert _reason(h, reasons.PLANNED) == ("False", reasons.DOES_NOT_FIT)
        text = _message(h, reasons.PLANNED)
        assert "GiB per GPU" in text
        assert "hardware.gpusPerGroup: 8" in text
        assert h.groups() == []
        h.edit(hardware={"gpusPerGroup": 8})
        await h.serve()
        assert _reason(h, reasons.STALLED) is None

    play(scenario)


def test_what_fits_but_has_no_room_waits_and_says_for_what() -> None:
    """Lost: the difference between asking for other GPUs and asking a colleague to finish."""

    async def scenario(h: Harness) -> None:
        pods = _busy(h)
        h.apply(_sized(QWEN, gpusPerGroup=8))
        await h.until(lambda: _reason(h, reasons.CAPACITY_AVAILABLE) == ("False", reasons.CAPACITY_SHORT), 30)
        assert "8 free GPUs on one node" in _message(h, reasons.CAPACITY_AVAILABLE)
        assert f"free are 0, on all B200 nodes ({len(pods)})" in _message(h, reasons.CAPACITY_AVAILABLE)
        assert _reason(h, reasons.PLANNED) == ("True", reasons.PLANNED_REASON)
        h.world.server.delete(POD, "research", pods[0]["metadata"]["name"], "research", grace_seconds=0)
        await h.serve()
        assert _reason(h, reasons.CAPACITY_AVAILABLE) == ("True", reasons.CAPACITY_SUFFICIENT)

    play(scenario)


def test_a_fallback_accelerator_is_taken_where_the_first_has_no_room() -> None:
    """Lost: idle GPUs of the second kind, while a deployment waits for the first."""

    async def scenario(h: Harness) -> None:
        h.world.nodes.add("spare", 8, "NVIDIA-H200")
        _busy(h)
        h.apply(manifest(model={"name": QWEN["name"]}, hardware={"accelerators": ["B200", "H200"]}))
        await h.serve()
        assert h.status()["plan"]["accelerator"] == "H200"
        assert "B200" in _message(h, reasons.PLANNED)

    play(scenario)


def _add_gb200(h: Harness) -> None:
    """A node without a device plugin."""
    node = dra_only("dra-0")
    node["metadata"]["labels"][PRODUCT] = "NVIDIA-GB200"
    h.world.server.set_status(NODE, h.world.server.create(NODE, node, "kubelet"), node["status"], "kubelet")


def _announce_gpus(h: Harness) -> None:
    gpus = resource_slice("dra-0", gpus=4, product="NVIDIA GB200", memory="189471Mi")
    h.world.server.create(RESOURCE_SLICE, gpus, "dra-driver")
    h.world.server.create(DEVICE_CLASS, device_class(), "dra-driver")


def test_gpus_that_a_dra_driver_announces_are_planned_with() -> None:
    """Lost: every cluster without a device plugin, which would be told that it has no GPUs."""

    async def scenario(h: Harness) -> None:
        _add_gb200(h)
        h.apply(manifest(model=QWEN, hardware={"accelerator": "GB200", "gpusPerGroup": 4}))
        await h.until(lambda: _reason(h, reasons.PLANNED) == ("False", reasons.NO_NODES), 10)
        _announce_gpus(h)
        await h.until(lambda: _reason(h, reasons.PLANNED) == ("True", reasons.PLANNED_REASON), 60)
        assert (h.status()["plan"]["accelerator"], h.status()["plan"]["podsPerGroup"]) == ("GB200", 1)

    play(scenario)


def test_gpus_that_claims_hold_are_not_free() -> None:
    """Lost: idle GPUs of the second kind, while a deployment waits for GPUs that somebody has claimed."""

    async def scenario(h: Harness) -> None:
        _add_gb200(h)
        _announce_gpus(h)
        held = claim("dra-0", "gpu-0", "gpu-1", "gpu-2")
        h.world.server.create(RESOURCE_CLAIM, held, "research")
        h.apply(manifest(model=QWEN, hardware={"accelerators": ["GB200", "B200"], "gpusPerGroup": 4}))
        await h.serve()
        assert h.status()["plan"]["accelerator"] == "B200"

    play(scenario)


def test_a_model_that_the_catalogue_does_not_know_comes_with_its_config() -> None:
    """Lost: own fine-tunes and new models, which would be laid out by guess."""
    config = {
        "architectures": ["MixtralForCausalLM"],
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 32000,
        "intermediate_size": 14336,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "max_position_embeddings": 32768,
    }

    async def scenario(h: Harness) -> None:
        h.apply(_sized({"name": "org/own-moe", "configFrom": {"name": "own"}}))
        await h.until(lambda: "ConfigMap own does not exist" in _message(h, reasons.PLANNED), 10)
        broken = {**config, "hidden_size": -1}
        own = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "own", "namespace": NAMESPACE},
            "data": {"config.json": json.dumps(broken)},
        }
        h.world.server.create(CONFIG_MAP, own, "user")
        await h.until(lambda: "hidden_size" in _message(h, reasons.PLANNED), 60)
        assert h.groups() == []
        own["data"] = {"config.json": json.dumps(config)}
        h.world.server.patch(CONFIG_MAP, NAMESPACE, "own", {"data": own["data"]}, "user")
        await h.until(lambda: h.groups() != [], 60)
        await h.serve()
        plan = h.status()["plan"]
        assert (plan["precision"], plan["contextLength"]) == ("bf16", 32768)

    play(scenario)


def test_new_nodes_do_not_move_what_runs() -> None:
    """Lost: serving groups, restarted because somebody added a rack."""

    async def scenario(h: Harness) -> None:
        h.apply(_sized(QWEN))
        await h.serve()
        before = [g["metadata"]["uid"] for g in h.world.server.list(LEADER_WORKER_SET)]
        h.world.nodes.add("larger", 4, "NVIDIA-B200")
        h.world.nodes.add("other", 8, "NVIDIA-GB200")
        h.edit(objective={"timePerOutputToken": "20ms"})
        await h.settle()
        assert [g["metadata"]["uid"] for g in h.world.server.list(LEADER_WORKER_SET)] == before

    play(scenario)


def test_a_plan_of_today_that_differs_is_told_and_not_carried_out() -> None:
    """Lost: the knowledge that what runs was planned for other nodes or another objective."""

    async def scenario(h: Harness) -> None:
        h.apply(_sized(QWEN))
        await h.serve()
        before = h.status()["plan"]
        assert "today" not in _message(h, reasons.PLANNED)
        h.edit(objective={"goal": "FewestGPUs" if before["width"] > 4 else "MostThroughput"})
        await h.until(lambda: "planned for today's nodes and objective" in _message(h, reasons.PLANNED), 60)
        await h.settle()
        assert h.status()["plan"] == before

    play(scenario)
