"""Processes that run cells, and end when the benchmark does, however that ends."""

import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

_LOOK = 2.0
"""Seconds between two looks at whether the benchmark is still there."""


def pool(jobs: int) -> ProcessPoolExecutor:
    """Fresh processes: forked ones would share threads' locks with their parent."""
    # Each has one core.
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")
    return ProcessPoolExecutor(
        jobs, mp_context=get_context("spawn"), initializer=_begin, initargs=(os.getpid(),)
    )


def _begin(parent: int) -> None:
    # The benchmark itself answers an interrupt.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os._exit(1)
