"""`python -m verify.autoscalers [--check] [--folder F]`: what Kubernetes' HPA, Knative's autoscaler and Dynamo's
planner themselves decide on random cases, recorded in tests/unit/golden, with which the simulator's policies are
compared.

Their code is fetched by Go and pip and run in the folder (a temporary one unless named; some minutes, mostly
Kubernetes' build). `--check` compares with the record instead of writing it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verify import autoscaler_cases
from verify.autoscaler_cases import Case

HACK = Path(__file__).parents[1]
GOLDEN = HACK.parent / "tests" / "unit" / "golden"
PEERS = Path(__file__).parent / "peers"
KNATIVE = "knative.dev/serving@v0.51.0"
KUBERNETES = "k8s.io/kubernetes@v1.36.3"
DYNAMO = "ai-dynamo==1.6.1"
DYNAMO_NEEDS = ("msgspec==0.23.0", "numpy==2.4.6", "pydantic==2.14.4", "pyyaml==6.0.4", "scikit-learn==1.9.1")


@dataclass(frozen=True)
class Peer:
    record: str
    release: str
    cases: Callable[[], list[Case]]
    decide: Callable[[list[Case], Path], list[Any]]


def knative(cases: list[Case], folder: Path) -> list[Any]:
    """Its autoscaler.go as released, among declarations of ours: its own packages need modules that are not served."""
    source = _module(KNATIVE) / "pkg" / "autoscaler"
    _copy(PEERS / "knative", folder)
    for name in ("scaling/autoscaler.go", "scaling/metrics.go"):
        _copy(source / name, folder / "pkg" / "autoscaler" / name)
    _copy(source / "aggregation" / "max", folder / "pkg" / "autoscaler" / "aggregation" / "max")
    _run(["go", "build", "-o", "decide", "./drive"], folder)
    answers: list[Any] = json.loads(_run(["./decide"], folder, json.dumps(cases)))
    return answers


def kubernetes(cases: list[Case], folder: Path) -> list[Any]:
    """The controller's own package, copied, with a test beside it: what decides is not exported."""
    package = folder / "podautoscaler"
    _copy(_module(KUBERNETES) / "pkg" / "controller" / "podautoscaler", package)
    for test in package.glob("*_test.go"):
        test.unlink()
    _copy(PEERS / "hpa" / "drive_test.go", package / "drive_test.go")
    for name in ("go.mod", "go.sum"):
        _copy(HACK / "controlplane" / name, folder / name)
    (folder / "cases.json").write_text(json.dumps(cases))
    told = {"CASES": str(folder / "cases.json"), "ANSWERS": str(folder / "answers.json")}
    _run(["go", "test", "-count=1", "-run", "TestDrive", "./podautoscaler"], folder, told=told)
    answers: list[Any] = json.loads((folder / "answers.json").read_text())
    return answers


def dynamo(cases: list[Case], folder: Path) -> list[Any]:
    """The planner's Python from its wheel."""
    python = folder / "python"
    folder.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", str(python)], folder)
    pip = [str(python / "bin" / "pip"), "--disable-pip-version-check", "-q"]
    _run([*pip, "install", *DYNAMO_NEEDS], folder)
    _run([*pip, "download", "--no-deps", "-d", str(folder), DYNAMO], folder)
    with zipfile.ZipFile(next(folder.glob("ai_dynamo-*.whl"))) as wheel:
        wheel.extractall(folder / "wheel")
    reader = Path(__file__).with_name("dynamo_reader.py")
    told = json.dumps(cases)
    answers: list[Any] = json.loads(
        _run([str(python / "bin" / "python"), str(reader), str(folder / "wheel")], folder, told)
    )
    return answers


PEER = {
    "kubernetes": Peer("autoscaler_kubernetes.json", KUBERNETES, autoscaler_cases.horizontal, kubernetes),
    "knative": Peer("autoscaler_knative.json", KNATIVE, autoscaler_cases.concurrency, knative),
    "dynamo": Peer("autoscaler_dynamo.json", DYNAMO, autoscaler_cases.planner, dynamo),
}


def main() -> int:
    """Exit status 1: a peer decides otherwise than recorded."""
    parser = argparse.ArgumentParser(prog="verify.autoscalers", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the record, write nothing")
    parser.add_argument("--folder", type=Path, help="where to build the peers (default: a temporary folder)")
    parser.add_argument("peers", nargs="*", choices=[[], *PEER], help="these alone")
    arguments = parser.parse_args()
    differ = 0
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.folder or Path(temporary)
        for name in arguments.peers or PEER:
            differ += _one(PEER[name], root.resolve() / name, arguments.check)
    return 1 if differ else 0


def _one(peer: Peer, folder: Path, check: bool) -> int:
    cases = peer.cases()
    shutil.rmtree(folder, ignore_errors=True)
    text = _text(peer.release, cases, peer.decide(cases, folder))
    record = GOLDEN / peer.record
    same = record.exists() and record.read_text() == text
    if not check:
        record.write_text(text)
    print(f"{peer.release}: {len(cases)} cases, {'as recorded' if same else 'not as recorded'}")
    return int(check and not same)


def _text(release: str, cases: list[Case], answers: list[Any]) -> str:
    """JSON with one line per case, so that a changed case is a changed line."""
    rows = [
        json.dumps({"case": case, "decided": answer}, separators=(",", ":"))
        for case, answer in zip(cases, answers, strict=True)
    ]
    return f'{{"peer": "{release}", "cases": [\n' + ",\n".join(rows) + "\n]}\n"


def _module(name: str) -> Path:
    answer = json.loads(_run(["go", "mod", "download", "-json", name], Path(tempfile.gettempdir())))
    return Path(answer["Dir"])


def _copy(source: Path, target: Path) -> None:
    """Files of the module cache are read-only; the copies are not."""
    if source.is_dir():
        for file in sorted(source.rglob("*")):
            if file.is_file():
                _copy(file, target / file.relative_to(source))
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())


def _run(command: list[str], folder: Path, given: str = "", told: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        input=given,
        capture_output=True,
        text=True,
        env={**os.environ, **(told or {})},
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed in {folder}:\n{(done.stderr + done.stdout)[-3000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
