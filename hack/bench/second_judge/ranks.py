"""How far two judges agree on an order."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Correlation of ranks, equal values sharing theirs: 1 the same order, -1 the reverse. NaN for fewer than two, or
    where one of them knows no order."""
    if len(one) < 2 or len(set(one)) < 2 or len(set(other)) < 2:
        return float("nan")
    return float(np.corrcoef(_ranks(one), _ranks(other))[0, 1])


def kendall(one: Sequence[float], other: Sequence[float]) -> float:
    """Tau-b: pairs in the same order less pairs in the reverse one, over those that are not tied. NaN as above."""
    same = reverse = tied_one = tied_other = 0
    for at in range(len(one)):
        for before in range(at):
            a, b = np.sign(one[at] - one[before]), np.sign(other[at] - other[before])
            same += a * b > 0
            reverse += a * b < 0
            tied_one += a == 0
            tied_other += b == 0
    pairs = len(one) * (len(one) - 1) / 2
    scale = (pairs - tied_one) * (pairs - tied_other)
    return float((same - reverse) / np.sqrt(scale)) if scale > 0 else float("nan")


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    return np.array([(array < value).sum() + ((array == value).sum() + 1) / 2 for value in array])
