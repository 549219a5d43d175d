"""The whole of one fetch: find it complete, or wait for who fetches it, or fetch it."""

import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from moe_operator.catalog.weights_layout import (
    Reason,
    SourceAddress,
    canonical_revision,
    entry_name,
    parse_source,
)
from moe_operator.weights.collection import disk_full, make_room
from moe_operator.weights.errors import (
    FetchError,
    InterruptedFetchError,
    LeaseLostError,
    SourceChangedError,
)
from moe_operator.weights.folder import Cache, Entry, unusable
from moe_operator.weights.lease import Claim, Lease, held
from moe_operator.weights.progress import Outcome, Phase, Progress
from moe_operator.weights.state import State, write_state

PATIENCE = 120.0
"""Seconds without a byte after which a source counts as unreachable; the Job's or pod's own back-off goes on."""
_LOOK = 0.5  # seconds between two looks at another's lease
_CHANGES = 3  # times that a source may change under our hands
_TOUCH = 60.0  # seconds that `last_used` may be behind: many pods of one group need not all write it


@dataclass(frozen=True)
class Request:
    """What is to be in the cache."""

    source: str
    cache: Path
    revision: str | None = None
    endpoint: str | None = None
    in_use: tuple[str, ...] = ()
    reserve: int = 0
    """Bytes that stay free."""
    include: tuple[str, ...] = ()
    patience: float = PATIENCE


class Fetch:
    """One run of the program."""

    def __init__(self, request: Request, progress: Progress, stop: threading.Event) -> None:
        self._request, self._progress, self._stop = request, progress, stop
        self._cache = Cache(request.cache)
        self._entry: Entry | None = None
        self._lease: Lease | None = None

    def run(self) -> Outcome:
        """Fetch, and say how it ended. Raises nothing: every end is an outcome."""
        try:
            address = parse_source(self._request.source)
        except ValueError as error:
            return Outcome(Reason.BAD_SOURCE, str(error), "")
        name = entry_name(self._request.source, self._request.revision)
        try:
            self._cache.prepare()
            self._entry = self._cache.entry(name)
            state = self._complete(self._entry, address)
        except InterruptedFetchError:
            return self.interrupted()
        except FetchError as error:
            return self._ended(error.reason, error.message)
        except OSError as error:
            full = self._entry and disk_full(self._cache, self._entry, self._entry.read(), error)
            fault = full or unusable(self._request.cache, error)
            return self._ended(fault.reason, fault.message)
        finally:
            self.let_go()
        size = state.total_bytes
        return Outcome(Reason.COMPLETE, f"{len(state.files)} files", name, state.commit, size)

    def interrupted(self) -> Outcome:
        """How a run ends that was told to stop."""
        return self._ended(
            Reason.INTERRUPTED, "told to stop; what is there is kept, and the next run goes on"
        )

    def let_go(self) -> None:
        """Give the lease back, so that a successor need not wait."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()

    def _ended(self, reason: Reason, message: str) -> Outcome:
        entry = self._entry
        state = entry.read() if entry else None
        return Outcome(
            reason,
            message,
            entry.name if entry else "",
            state.commit if state else "",
            entry.present_bytes(state) if entry and state else 0,
        )

    def _complete(self, entry: Entry, address: SourceAddress) -> State:
        changes = 0
        while True:
            if state := self._usable(entry):
                return state
            self._lease = self._acquire(entry)
            try:
                return self._fill(entry, address)
            except LeaseLostError:
                continue  # another took over after a long stall: wait for it
            except SourceChangedError as error:
                changes += 1
                if changes == _CHANGES:
                    raise FetchError(
                        Reason.CORRUPT, f"the source changed {changes} times while it was fetched: {error}"
                    ) from error
                from moe_operator.weights.resolving import forget

                forget(entry)
            finally:
                self.let_go()

    def _usable(self, entry: Entry) -> State | None:
        """The state of an entry that is complete and that nobody is about to remove."""
        state = entry.read()
        if state is None or not self._is_whole(entry, state):
            return None
        if time.time() - state.last_used > _TOUCH:
            state = replace(state, last_used=time.time())
            try:
                write_state(entry.state_path, state)
            except FileNotFoundError:
                return None  # it was just collected
            except OSError:
                pass  # a volume that this pod only reads, or a full one: the model is there all the same
        # In this order: a collector takes the lease first and then reads the time.
        if held(self._cache.lease_path(entry.name)):
            return None
        self._show(state)
        self._progress.present(state.total_bytes, files=len(state.files))
        return state

    def _is_whole(self, entry: Entry, state: State) -> bool:
        return state.complete and set(self._request.include) <= set(state.include) and entry.whole(state)

    def _acquire(self, entry: Entry) -> Lease:
        claim = Claim(self._cache.lease_path(entry.name))
        while (lease := claim.try_acquire()) is None:
            state = entry.read()
            if state:
                self._show(state)
                self._progress.present(entry.present_bytes(state) - self._progress.bytes)
            self._progress.phase(Phase.WAITING, f"{claim.holder} is working on this entry")
            if self._stop.wait(_LOOK):
                raise InterruptedFetchError
        self._progress.present(-self._progress.bytes, files=-self._progress.files)
        return lease

    def _fill(self, entry: Entry, address: SourceAddress) -> State:
        assert self._lease is not None
        request = self._request
        state = entry.read()
        if state and self._is_whole(entry, state):
            state = replace(state, last_used=time.time())
            write_state(entry.state_path, state)
            self._show(state)
            self._progress.present(state.total_bytes, files=len(state.files))
            return state
        # Imported when there is something to fetch: a complete cache is found in milliseconds.
        from moe_operator.weights.download import FILES_AT_ONCE, download
        from moe_operator.weights.resolving import resolve
        from moe_operator.weights.retry import Patience
        from moe_operator.weights.sources import open_source

        def patience() -> Patience:
            return Patience(request.patience, self._stop)

        source = open_source(address, request.endpoint, FILES_AT_ONCE)
        revision = (
            request.revision or ""
            if address.scheme == "s3"
            else canonical_revision(address, request.revision)
        )
        state = resolve(
            entry, address, revision, request.include, source, self._lease, self._progress, patience
        )
        self._show(state)
        make_room(self._cache, entry, state, request.in_use, request.reserve, self._progress, self._stop)
        state = download(entry, state, source, self._lease, self._progress, patience, self._stop)
        self._progress.phase(Phase.VERIFYING, "every file was checked as it came; looking at their places")
        return self._finish(entry, state)

    def _finish(self, entry: Entry, state: State) -> State:
        """Call the entry complete: the last thing that is written."""
        assert self._lease is not None
        if not entry.whole(state):
            raise FetchError(
                Reason.BAD_CACHE, f"files of {entry.path} were changed by somebody while it was filled"
            )
        self._lease.check()
        state = replace(state, complete=True, last_used=time.time())
        write_state(entry.state_path, state)
        return state

    def _show(self, state: State) -> None:
        self._progress.commit = state.commit
        self._progress.total_bytes = state.total_bytes
        self._progress.total_files = len(state.files)
