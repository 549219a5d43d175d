"""How long one pass over scarce GPUs takes: `python -m bench.allocation`.

Claims of many deployments on nodes of eight GPUs, in cases from plenty to a queue of all of them. Prints milliseconds
of the best and the worst of some runs, and what came of the claims.
"""

import argparse
import random
import time
from collections import Counter

from moe_operator.autoscaler.allocation import allocate
from moe_operator.autoscaler.claims import Claim, Held, Phase, Pool, Shape

_RUNS = 7


def _claims(
    count: int, nodes: int, held: float, pools: int, draw: random.Random
) -> tuple[list[Claim], dict[str, int]]:
    """`held`: share of the GPUs that groups hold."""
    names = [f"node-{index:04d}" for index in range(nodes)]
    free = dict.fromkeys(names, 8)
    size = nodes // pools
    made = [
        Pool("B200", {name: f"rack-{i // 9}" for i, name in enumerate(names[p * size : (p + 1) * size])})
        for p in range(pools)
    ]
    groups: dict[int, list[Held]] = {index: [] for index in range(count)}
    shapes = [draw.choice([Shape(1, 8), Shape(1, 4), Shape(2, 8), Shape(1, 1)]) for _ in range(count)]
    open_ = {id(pool): list(pool.nodes) for pool in made}
    target, used = held * nodes * 8, 0
    while used < target:
        index = draw.randrange(count)
        shape, pool = shapes[index], made[index % pools]
        fits = [n for n in draw.sample(open_[id(pool)], min(24, size)) if free[n] >= shape.gpus][: shape.pods]
        if len(fits) < shape.pods:
            used += 1  # towards an end where no room is left
            continue
        for node in fits:
            free[node] -= shape.gpus
        used += shape.total
        groups[index].append(Held(f"m{index}-g{len(groups[index])}", Phase.SERVING, tuple(fits), shape.gpus))
    claims = [
        Claim(
            key=("bench", f"m{index:04d}"),
            pool=made[index % pools],
            shape=shapes[index],
            floor=1,
            wanted=max(1, len(groups[index]) + draw.choice([0, 0, 1, 2])),
            granted=len(groups[index]),
            groups=tuple(groups[index]),
            priority=draw.choice([0, 0, 0, 10, 100]),
            since=float(draw.randrange(3600)),
        )
        for index in range(count)
    ]
    return claims, free


def main() -> None:
    """Run all cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deployments", type=int, default=1000)
    arguments = parser.parse_args()
    count = arguments.deployments
    for title, nodes, held, pools in (
        ("plenty", 2 * count, 0.3, 1),
        ("scarce", count, 0.97, 1),
        ("scarce, 10 pools", count, 0.97, 10),
        ("a tenth of the room", max(10, count // 10), 1.0, 1),
    ):
        claims, free = _claims(count, nodes, held, pools, random.Random(7))
        took = []
        for _ in range(_RUNS):
            start = time.process_time()
            found = allocate(claims, free, 3600.0)
            took.append((time.process_time() - start) * 1e3)
        told = Counter(s.waiting.reason.value for s in found.shares.values() if s.waiting)
        gone = sum(len(share.given_up) for share in found.shares.values())
        print(
            f"{title:20} {count} deployments, {nodes} nodes: {min(took):6.1f} to {max(took):6.1f} ms;"
            f" waits: {dict(sorted(told.items()))}; reclaimed {gone}"
        )


if __name__ == "__main__":
    main()
