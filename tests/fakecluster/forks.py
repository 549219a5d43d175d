"""Branches of a run: the process is copied as it stands, and each copy goes on by itself to its own end.

A world in virtual time lives in one process and holds no file, so a copy of the process is a copy of the world. What
led up to a branch is then computed once, and not again for every way in which it may go on.
"""

import asyncio
import os
import pickle
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any, NoReturn

from localcluster import linux


@dataclass
class Forks:
    """The branches of one run. In a branch, `branch` is what it was forked as; in the run itself None."""

    at_once: int = field(default_factory=lambda: os.cpu_count() or 1)
    branch: Any = None
    results: dict[Any, Any] = field(default_factory=dict)
    """What each branch ended with: in the run itself, once they were collected."""
    _alive: dict[int, tuple[Any, IO[bytes]]] = field(default_factory=dict)
    _answer: IO[bytes] | None = None

    def fork(self, name: Any) -> bool:
        """Whether this is the new branch. To be called in a running event loop. The branch's answer comes
        by a file that outlives the call."""
        while len(self._alive) >= self.at_once:
            self._collect_one()
        loop = asyncio.get_running_loop()
        answer = tempfile.TemporaryFile()  # noqa: SIM115
        run = os.getpid()
        pid = os.fork()
        if pid:
            self._alive[pid] = (name, answer)
            return False
        _end_with(run)
        # A loop runs in the process that started it: the copy is told that it is meant.
        asyncio._set_running_loop(loop)
        self.branch, self._answer, self._alive = name, answer, {}
        return True

    def end(self, play: Callable[[], Any]) -> Any:
        """Play to the end. A branch ends its process here, with what it returned or raised as the result."""
        try:
            returned = play()
        except BaseException as error:
            if self.branch is None:
                self._abandon()
                raise
            told = str(error) if isinstance(error, AssertionError) else traceback.format_exc()
            self._leave(told)
        if self.branch is not None:
            self._leave(returned)
        while self._alive:
            self._collect_one()
        return returned

    def _leave(self, result: Any) -> NoReturn:
        assert self._answer is not None
        self._answer.write(pickle.dumps(result))
        self._answer.flush()
        os._exit(0)

    def _collect_one(self) -> None:
        try:
            pid, status = os.waitpid(next(iter(self._alive)), 0)
        except BaseException:  # the test's time is over
            self._abandon()
            raise
        name, answer = self._alive.pop(pid)
        with answer:
            answer.seek(0)
            content = answer.read()
        self.results[name] = pickle.loads(content) if content else f"the branch ended with status {status}"

    def _abandon(self) -> None:
        for pid, (_, answer) in self._alive.items():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            answer.close()
        self._alive = {}


def _end_with(parent: int) -> None:
    """Nobody collects the branches of a run that was killed; each would keep a processor busy to its own end."""
    if sys.platform == "linux":
        linux.die_with_parent()
    if os.getppid() != parent:
        os._exit(1)  # it ended before the kernel was asked
