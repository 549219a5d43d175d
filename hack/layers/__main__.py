"""`python -m layers [LAYER ...]`: run the given layers (default: all but optional ones), print a summary, exit 1 if one
failed.

Every layer runs even if another failed, so that one run tells everything.
"""

import argparse
import os
import signal
import sys
import tempfile

from layers.run import Outcome, Runner
from layers.table import LAYERS


def chosen(arguments: list[str]) -> list[str]:
    """The layers to run, in the order of LAYERS; all but optional ones when none is named. Exits with 2 for an unknown
    name."""
    known = [layer.name for layer in LAYERS]
    parser = argparse.ArgumentParser(prog="layers", description="Run the test layers and sum them up.")
    # No `choices`: with nargs="*" some Python 3.11 releases check the empty list itself against them.
    parser.add_argument("layers", nargs="*", metavar="LAYER", help=f"of {', '.join(known)}")
    named = parser.parse_args(arguments).layers
    if unknown := [name for name in named if name not in known]:
        parser.error(f"no layer {', '.join(unknown)} (choose from {', '.join(known)})")
    return [layer.name for layer in LAYERS if layer.name in named or not (named or layer.optional)]


def summary(outcomes: dict[str, Outcome]) -> tuple[str, bool]:
    """The closing table with what failed, and whether every layer ran something and none failed."""
    lines = [f"{'LAYER':<12}{'PASSED':>8}{'FAILED':>8}{'SKIPPED':>9}{'SECONDS':>9}"]
    for name, one in outcomes.items():
        lines.append(f"{name:<12}{one.passed:>8}{one.failed:>8}{one.skipped:>9}{one.seconds:>9.0f}")
    passed, failed, skipped = (
        sum(counts)
        for counts in zip(*((o.passed, o.failed, o.skipped) for o in outcomes.values()), strict=True)
    )
    lines.append(f"{passed} passed, {failed} failed, {skipped} skipped")
    empty = [name for name, one in outcomes.items() if one.passed + one.failed == 0]
    lines += [f"layer {name} ran nothing" for name in empty]
    lines += [f"{name}: {broken}" for name, one in outcomes.items() for broken in one.broken]
    return "\n".join(lines), not failed and not empty


def main() -> int:
    """Exit 0 only if every layer ran at least one test or check and none failed."""
    wanted = chosen(sys.argv[1:])
    # Told to stop, leave by an exception: it ends the running commands, and with them the clusters below.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # A shell starts jobs in the background with it ignored, which commands would inherit and tests of it fail by.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    runner = Runner()
    # Engines and clients leave sockets and files when they are killed; a folder of this run's own takes them along.
    with tempfile.TemporaryDirectory(prefix="moe-", ignore_cleanup_errors=True) as scratch:
        os.environ["TMPDIR"] = scratch
        runner.run(layer for layer in LAYERS if layer.name in wanted)
    text, good = summary({name: runner.outcomes[name] for name in wanted if name in runner.outcomes})
    print(f"\n{text}")
    return 0 if good and len(runner.outcomes) == len(wanted) else 1


if __name__ == "__main__":
    sys.exit(main())
