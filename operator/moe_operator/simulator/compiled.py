"""Numba's compiler with the types of what it compiles.

Compiled code is kept beside the module, in its `__pycache__`, or where that cannot be written in the user's cache
folder; NUMBA_CACHE_DIR names another place.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])

#: Numba's switch for its runtime, which counts references to arrays; without it a function that makes an array is
#: refused as it is compiled. Its stubs do not know it.
_UNCOUNTED: dict[str, Any] = {"_nrt": False}


def compiled(function: F) -> F:
    """Compiled on its first call, or read from the cache. Floating point as written: nothing is reordered, so that a
    result is the same on every machine that has the same arithmetic.

    What is compiled makes no arrays: it is handed all of them, and whoever calls it keeps them. So their references
    need not be counted, and every call is drawn in: to pass on some fifty arrays, and to count each, took six sevenths
    of the time."""
    return cast(F, numba.njit(cache=True, forceinline=True, **_UNCOUNTED)(function))
