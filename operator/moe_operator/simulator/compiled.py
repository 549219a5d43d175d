"""Numba's compiler with the types of what it compiles.

Compiled code is kept beside the module, in its `__pycache__`, or where that cannot be written in the user's cache
folder; NUMBA_CACHE_DIR names another place.
"""

from collections.abc import Callable
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Compiled on its first call, or read from the cache. Floating point as written: nothing is reordered, so that a
    result is the same on every machine that has the same arithmetic."""
    return cast(F, numba.njit(cache=True)(function))
