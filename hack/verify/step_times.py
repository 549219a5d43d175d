"""The constants of an engine's step times, fitted to steps that were measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class StepTimes:
    """Seconds, as in `moe_operator.simulator.engine_model`, of one rank."""

    base: float
    experts: float
    decode: float
    prefill: float
    kv: float
    error: float
    """Mean relative error of a step."""
    bias: float
    """Of the sum of all steps."""
    steps: int

    def bias_on(self, steps: Sequence[tuple[float, float, float, float]], share: float) -> float:
        """By how much the sum of other steps, each with what was in it, is missed: by how much the machine's speed has
        changed. Rows as of `fit`."""
        times, decode, prefill, kv = np.array(steps).T
        touched = 1 - (1 - share) ** (decode + prefill)
        fitted = (
            self.base + self.experts * touched + self.decode * decode + self.prefill * prefill + self.kv * kv
        )
        return float(fitted.sum() / times.sum() - 1)


def fit(steps: Sequence[tuple[float, float, float, float]], share: float) -> StepTimes:
    """Least squares of (seconds, requests that decode, prompt tokens, tokens in the cache); nothing below 0.

    Errors count by the step's own size, as it was fitted before: by its measured one, steps that chance made long
    would count less than those that it made short. `share` is that of the experts that a token goes to.
    """
    table = np.array(steps)
    times, decode, prefill, kv = table.T
    touched = 1 - (1 - share) ** (decode + prefill)
    matrix = np.stack([np.ones(len(times)), touched, decode, prefill, kv], axis=1)
    weights = np.full(len(times), 1 / times.mean())
    for _ in range(4):
        found = _not_negative(matrix * weights[:, None], times * weights)
        weights = 1 / (matrix @ found)
    fitted = matrix @ found
    base, experts, each, prompt, held = map(float, found)
    error, bias = float(np.mean(np.abs(times / fitted - 1))), float(fitted.sum() / times.sum() - 1)
    return StepTimes(base, experts, each, prompt, held, error, bias, len(times))


def _not_negative(matrix: Floats, times: Floats) -> Floats:
    """The most negative is left out until none is."""
    used = list(range(matrix.shape[1]))
    while True:
        solved = np.linalg.lstsq(matrix[:, used], times, rcond=None)[0]
        if (solved >= 0).all():
            break
        used.pop(int(np.argmin(solved * matrix[:, used].mean(axis=0))))
    found = np.zeros(matrix.shape[1])
    found[used] = solved
    return found
