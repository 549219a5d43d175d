"""`moe-operator weights`: fill a cache with a model's weights, check it, list it, remove from it.

Imports nothing of the operator but the weights package: it runs as an init container of every serving pod.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from moe_operator.catalog.weights_layout import EXIT_CODES, Reason
from moe_operator.weights.errors import FetchError, InterruptedFetchError
from moe_operator.weights.fetch import PATIENCE, Fetch, Request
from moe_operator.weights.folder import unusable
from moe_operator.weights.progress import Outcome, Progress

_STOPS_WITHIN = 3.0
"""Seconds after a signal: well within a pod's grace, so that the lease is given back before SIGKILL."""
_UNITS = {
    "": 1,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
}


def main(arguments: Sequence[str]) -> int:
    """Exit code: catalog.weights_layout.EXIT_CODES; 2 for misuse."""
    given = _parser().parse_args(arguments)
    # Others of the same group may share the volume.
    os.umask(0o002)
    if given.action == "list":
        return _list(given)
    run = _Run(Path(given.message_file) if given.message_file else None)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, run.interrupt)
    work = {"fetch": _fetch, "verify": _verify, "remove": _remove}[given.action]
    return run.end(work(given, run))


class _Run:
    """One run, which ends once: by its outcome, or by a signal that it could not heed in time."""

    def __init__(self, message_file: Path | None) -> None:
        self.progress, self.stop = Progress(), threading.Event()
        self.fetch: Fetch | None = None
        self._message_file = message_file
        self._ended = threading.Lock()

    def interrupt(self, *_: object) -> None:
        """Tell the work to stop; end the process if it sits in a silent connection."""
        self.stop.set()
        watch = threading.Timer(_STOPS_WITHIN, self._force)
        watch.daemon = True
        watch.start()

    def wait(self, seconds: float = 0.0) -> None:
        """Go on after so long. Raises InterruptedFetchError once told to stop."""
        if self.stop.wait(seconds):
            raise InterruptedFetchError

    def end(self, outcome: Outcome) -> int:
        """Say the outcome, unless the process is being ended."""
        self._ended.acquire()
        self.progress.end(outcome, self._message_file)
        return EXIT_CODES[outcome.reason]

    def _force(self) -> None:
        if not self._ended.acquire(blocking=False):
            return
        outcome = Outcome(Reason.INTERRUPTED, "told to stop", "")
        with contextlib.suppress(OSError):
            if self.fetch is not None:
                self.fetch.let_go()
                outcome = self.fetch.interrupted()
        self.progress.end(outcome, self._message_file)
        end(EXIT_CODES[Reason.INTERRUPTED])


def end(code: int) -> None:
    """End the process now: a thread may sit in a read for as long as its connection is silent."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _fetch(given: argparse.Namespace, run: _Run) -> Outcome:
    request = Request(
        source=given.source,
        cache=Path(given.cache),
        revision=given.revision or None,
        endpoint=given.endpoint or None,
        in_use=tuple(given.in_use),
        reserve=given.reserve_free,
        include=tuple(given.include),
        patience=given.patience,
    )
    # Adapters are small: a mistake in one is known before hours of the model.
    for adapter in given.adapter:
        wanted = replace(
            request, source=adapter, revision=None, endpoint=given.adapter_endpoint or None, include=()
        )
        run.fetch = Fetch(wanted, Progress(adapter=adapter), run.stop)
        outcome = run.fetch.run()
        if outcome.reason != Reason.COMPLETE:
            # Commit and bytes are told of the model alone.
            return Outcome(outcome.reason, f"adapter {adapter}: {outcome.message}", outcome.entry)
    run.fetch = Fetch(request, run.progress, run.stop)
    return run.fetch.run()


def _verify(given: argparse.Namespace, run: _Run) -> Outcome:
    from moe_operator.weights.inspection import verify

    return _ended(given, given.entry, lambda: verify(Path(given.cache), given.entry, run.progress, run.wait))


def _remove(given: argparse.Namespace, run: _Run) -> Outcome:
    from moe_operator.weights.removal import remove

    named = given.entry[0] if len(given.entry) == 1 else ""
    return _ended(given, named, lambda: remove(Path(given.cache), given.entry, run.progress, run.wait))


def _ended(given: argparse.Namespace, entry: str, work: Callable[[], Outcome]) -> Outcome:
    try:
        return work()
    except FetchError as error:
        return Outcome(error.reason, error.message, entry)
    except InterruptedFetchError:
        return Outcome(Reason.INTERRUPTED, "told to stop", entry)
    except OSError as error:
        return Outcome(Reason.BAD_CACHE, unusable(Path(given.cache), error).message, entry)


def _list(given: argparse.Namespace) -> int:
    from moe_operator.weights.inspection import listed, table

    try:
        entries = listed(Path(given.cache))
    except FetchError as error:
        print(error.message, file=sys.stderr)
        return EXIT_CODES[error.reason]
    print(json.dumps(entries, indent=1) if given.output == "json" else table(entries))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="moe-operator weights", description="Brings a model's weights into a cache folder, once."
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    fetch = actions.add_parser("fetch", help="have a model complete in the cache")
    add = fetch.add_argument
    add("--source", required=True, help="hf://ORG/NAME or s3://BUCKET/PREFIX")
    add("--cache", required=True, metavar="DIR", help="the cache's folder")
    add("--revision", metavar="REV", help="branch, tag or commit of a repository (default: its main branch)")
    add("--endpoint", metavar="URL", help="a mirror of the hub, or an S3 store (default: the public ones)")
    add(
        "--adapter",
        action="append",
        default=[],
        metavar="SOURCE",
        help="have a LoRA adapter complete before the model; may be repeated",
    )
    add("--adapter-endpoint", metavar="URL", help="a mirror of the hub, for adapters")
    add(
        "--in-use",
        action="append",
        default=[],
        metavar="ENTRY",
        help="never remove this entry to make room; may be repeated",
    )
    add(
        "--reserve-free",
        type=_quantity,
        default=0,
        metavar="BYTES",
        help="keep so much free, as 1000000 or 10Gi (default: 0)",
    )
    add(
        "--include",
        action="append",
        default=[],
        metavar="PATTERN",
        help="take files that match, beside what an engine needs; may be repeated",
    )
    add(
        "--patience",
        type=_seconds,
        default=PATIENCE,
        metavar="SECONDS",
        help="give up after so long without a byte (default: %(default)g)",
    )
    _add_message_file(fetch)
    verify = actions.add_parser("verify", help="hash an entry's files again")
    verify.add_argument("--cache", required=True, metavar="DIR")
    verify.add_argument("--entry", required=True)
    _add_message_file(verify)
    remove = actions.add_parser("remove", help="remove entries whole")
    remove.add_argument("--cache", required=True, metavar="DIR")
    remove.add_argument("--entry", required=True, action="append", help="may be repeated")
    _add_message_file(remove)
    listing = actions.add_parser("list", help="the cache's entries")
    listing.add_argument("--cache", required=True, metavar="DIR")
    listing.add_argument("-o", "--output", choices=("text", "json"), default="text")
    return parser


def _add_message_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--message-file",
        metavar="FILE",
        help="write the outcome here too: the container's termination message",
    )


def _quantity(text: str) -> int:
    found = re.fullmatch(r"(\d+)(|[KMGT]i|[kMGT])", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r}: give bytes, as 1000000 or 10Gi")
    return int(found[1]) * _UNITS[found[2]]


def _seconds(text: str) -> float:
    if not text.isdigit() or not 1 <= int(text) <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r}: give seconds, from 1 to 86400")
    return float(text)
