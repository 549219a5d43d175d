"""Random cases on which autoscalers decide, the same on every run. Standard library only."""

import random
from typing import Any

Case = dict[str, Any]


def horizontal() -> list[Case]:
    """For Kubernetes' HPA: sequences of looks at one metric. Usage and target are thousandths, as it has them."""
    draw = random.Random(1)
    return [_horizontal(draw) for _ in range(60)]


def _horizontal(draw: random.Random) -> Case:
    plain = draw.random() < 0.25
    start = draw.randint(1, 12)
    at, looks = 0.0, []
    for _ in range(12):
        replicas = draw.randint(1, 16)
        aim = draw.choice((0.0, 0.4, 0.9, 0.95, 1.0, 1.05, 1.1, 1.12, 1.5, 3.0)) * draw.uniform(0.98, 1.02)
        looks.append({"at": at, "usage": int(aim * replicas * 5000), "replicas": replicas})
        at += draw.choice((15.0, 15.0, 15.0, 30.0, 60.0, 120.0, 301.0))
    return {
        "plain": plain,
        "up": None if plain or draw.random() < 0.4 else _rules(draw),
        "down": None if plain or draw.random() < 0.4 else _rules(draw),
        "target": 5000,
        "floor": 1,
        "ceiling": draw.choice((6, 20, 100)),
        "start": min(start, 6),
        "looks": looks,
    }


def _rules(draw: random.Random) -> Case:
    return {
        "stabilization": draw.choice((0, 30, 60, 120, 300)),
        "changes": [
            {
                "kind": draw.choice(("pods", "percent")),
                "value": draw.choice((1, 2, 4, 10, 50, 100)),
                "period": draw.choice((15, 60, 120)),
            }
            for _ in range(draw.randint(1, 3))
        ],
        "select": draw.choice(("Max", "Max", "Min", "Disabled")),
    }


def concurrency() -> list[Case]:
    """For Knative's autoscaler: sequences of both windows' means."""
    draw = random.Random(2)
    cases = []
    for _ in range(60):
        target = draw.choice((10.0, 70.0, 95.0))
        load, at, looks = draw.uniform(0, 12), 0.0, []
        for _ in range(14):
            load = max(0.0, load * draw.choice((0.3, 0.7, 1.0, 1.0, 1.3, 2.5)) + draw.uniform(-0.5, 0.8))
            looks.append(
                {
                    "at": at,
                    "stable": round(load * target * draw.uniform(0.6, 1.1), 3),
                    "panic": round(load * target * draw.uniform(0.7, 1.6), 3),
                    "ready": draw.randint(0, 10),
                }
            )
            at += draw.choice((2.0, 2.0, 15.0, 30.0, 60.0, 61.0))
        settings = {
            "concurrency": target,
            "stable_window": draw.choice((60.0, 180.0)),
            "panic_threshold": draw.choice((1.5, 2.0)),
            "max_up": draw.choice((2.0, 10.0, 1000.0)),
            "max_down": draw.choice((2.0, 1.5)),
        }
        cases.append({"settings": settings, "ready": draw.choice((0, 1, 1, 3, 8)), "looks": looks})
    return cases


def planner() -> list[Case]:
    """For Dynamo's planner: steps that it learns from, questions to the model, and looks at engines."""
    draw = random.Random(3)
    return [_planner(draw) for _ in range(70)]


def _planner(draw: random.Random) -> Case:
    noise = draw.choice((0.0, 0.02, 0.1))
    per_kv = draw.choice((16e-9, 60e-9, -5e-9))
    steps = [_step(draw, noise, per_kv) for _ in range(draw.choice((3, 8, 25, 80)))]
    served: Case = {
        "batched_tokens": draw.choice((2048, 8192)),
        "slots": draw.choice((64, 256)),
        "kv_tokens": draw.choice((200_000, 700_000)),
        "ttft": draw.choice((0.2, 0.5, 5.0)),
        "tpot": draw.choice((0.03, 0.05, 0.08)),
    }
    return {
        "target": draw.choice(("sla", "sla", "sla", "easy")),
        "served": served,
        "steps": steps,
        "questions": [
            {
                "queued": draw.choice((0, 500, 40_000)),
                "kv": draw.randint(0, served["kv_tokens"]),
                "isl": draw.choice((0.0, 300.0, 2000.0, 12_000.0)),
                "osl": draw.choice((50.0, 400.0, 2500.0)),
                "cached": draw.choice((None, 0.0, 0.4, 0.99)),
            }
            for _ in range(3)
        ],
        "looks": [_look(draw, served["kv_tokens"]) for _ in range(6)],
    }


def _step(draw: random.Random, noise: float, per_kv: float) -> list[float]:
    """Prefill tokens and requests, KV tokens and requests that decode, seconds."""
    prefill, requests = draw.choice((0, 300, 900, 4000)), draw.choice((0, 1, 2))
    decoding, kv = draw.choice((0, 5, 60, 200)), draw.randint(0, 600_000)
    seconds = (0.02 + 30e-6 * prefill + per_kv * kv) * draw.uniform(1 - noise, 1 + noise)
    timed = draw.random() >= 0.05
    return [
        prefill,
        requests,
        kv if decoding else 0,
        decoding,
        round(max(seconds, 0.001), 7) if timed else 0.0,
    ]


def _look(draw: random.Random, kv_tokens: int) -> Case:
    ready = draw.randint(1, 5)
    level = draw.choice((0.05, 0.3, 0.6, 0.9, 1.0))
    traffic = None
    if draw.random() < 0.4:
        traffic = {
            "num_req": draw.randint(0, 4000),
            "isl": draw.choice((500.0, 3000.0)),
            "osl": draw.choice((200.0, 1500.0)),
        }
    return {
        "ready": ready,
        "pending": draw.choice((0, 0, 0, 1, 3)),
        "blocked": draw.random() < 0.1,
        "cached": draw.choice((None, 0.3)),
        "traffic": traffic,
        "loads": [
            {
                "kv": int(kv_tokens * level * draw.uniform(0.9, 1.0)),
                "queued_prefill": draw.choice((0, 0, 0, 2000, 60_000)),
                "queued_kv": draw.choice((0, 0, 5000)),
            }
            for _ in range(ready if draw.random() < 0.9 else ready - 1)
        ],
    }
