"""An engine's step times as the other simulator takes them: tables that it interpolates in.

A step of it lasts as long as the slowest rank's:

    prefill(prompt tokens of the rank in the step) + decode(tokens in the caches of its decoding requests, their mean)

Ours also counts the other ranks' tokens. They enter here as if all ranks decoded for as many requests, which a balanced
group's do, and as if of prompts so many ranks computed as many tokens at once as `AT_ONCE` says.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moe_operator.simulator.engine_model import EngineModel

#: Points of the tables' axes, from few to many: prompts' tokens; requests that decode; tokens in the cache of each.
_PROMPTS, _POINTS = 65, 121


#: Ranks that compute prompts in one step: set so that two static groups serve the benchmark's trace alike in both
#: simulators (88.0 % in the objective by ours; by the other 94.4 %, 87.6 % and 77.3 % with 1, 1.5 and 2).
AT_ONCE = 1.5


def write(engine: EngineModel, path: Path, at_once: float = AT_ONCE) -> None:
    """The tables, in milliseconds."""
    prompts = np.linspace(0, engine.batch_tokens, _PROMPTS)
    held = _spread(engine.kv_tokens)
    context = _spread(engine.kv_tokens)
    requests = np.clip(held[:, None] / context[None, :], 1, engine.slots)
    tokens = engine.ranks * requests
    touched = 1 - (1 - engine.expert_share) ** tokens
    decode = (
        engine.base
        + engine.experts * touched
        + engine.shared * tokens
        + engine.decode * requests
        + engine.kv * held[:, None]
    )
    np.savez(
        path,
        prefill_isl=prompts,
        prefill_ttft_ms=(engine.prefill + at_once * engine.shared) * prompts * 1e3,
        decode_active_kv_tokens=held,
        decode_context_length=context,
        decode_itl=decode * 1e3,
    )


def _spread(most: int) -> NDArray[np.float64]:
    """From 1 on, closer together at the beginning."""
    points: NDArray[np.float64] = np.unique(np.rint(np.geomspace(16, most, _POINTS)))
    return points
