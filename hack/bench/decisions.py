"""`make bench-decisions`: how long a look at, and a decision for, many deployments take. Processor time of one thread.

Each deployment has a fleet of its own that has served a seeded day for some hours, so that everything is learned and
every bin in use. Aimed at: one decision for each of 1,000 deployments within 50 ms in all.
"""

import argparse
import json
import math
import os
import platform
import random
import time
from statistics import median

from factories.plant import Plant, plant

#: Fleets that are run for hours; deployments are copies in turn, as running a thousand takes long.
_FLEETS = 10
_LIMIT_MS = 50.0


def fleet(seed: int, seconds: float) -> Plant:
    """Some hours of a wave with noise."""
    draw = random.Random(seed)
    made = plant(groups=4)
    mean, swing, period = draw.uniform(2, 6), draw.uniform(0.1, 0.5), draw.uniform(1800, 7200)

    def rate(now: float) -> float:
        wave = 1 + swing * math.sin(2 * math.pi * now / period)
        return mean * made.capacity * wave * draw.uniform(0.9, 1.1)

    made.run(seconds, rate)
    return made


def main() -> int:
    """Print the figures, and one JSON line to keep. 1 if the limit is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.decisions")
    parser.add_argument("--deployments", type=int, default=1000)
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    fleets = [fleet(seed, arguments.hours * 3600) for seed in range(_FLEETS)]
    looks, wants, anew = [], [], []
    for _ in range(arguments.runs):
        look = want = first = 0.0
        for at in range(arguments.deployments):
            made = fleets[at % _FLEETS]
            asked = made.now, made.desired, made.floor, made.ceiling
            scaler = made.autoscaler
            serving = dict.fromkeys(scaler._groups)
            begun = time.process_time()
            scaler.look(made.now, serving, ())
            looked = time.process_time()
            scaler._kept = None  # so that what was learned is summed up anew
            scaler.want(*asked)
            summed = time.process_time()
            scaler.want(*asked)
            want += time.process_time() - summed
            first += summed - looked
            look += looked - begun
        looks.append(look * 1e3)
        wants.append(want * 1e3)
        anew.append(first * 1e3)
    report = {
        "deployments": arguments.deployments,
        "look_ms": round(median(looks), 1),
        "decision_ms": round(median(wants), 1),
        "decision_with_sums_anew_ms": round(median(anew), 1),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
    }
    print(f"a look at {arguments.deployments} deployments: {report['look_ms']} ms")
    print(
        f"a decision for each: {report['decision_ms']} ms; where all is summed up anew, as every two minutes: "
        f"{report['decision_with_sums_anew_ms']} ms"
    )
    print(json.dumps(report))
    return 0 if median(wants) <= _LIMIT_MS else 1


if __name__ == "__main__":
    raise SystemExit(main())
