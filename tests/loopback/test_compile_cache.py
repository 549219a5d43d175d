"""Compiled kernels that outlive a pod, with the real vLLM: each start would otherwise compile the same again.

vLLM's CPU platform compiles by Inductor (mode DYNAMO_TRACE_ONCE, whatever is asked for), and 0.32 cannot load its own
saved graph of that mode: it says so, and lowers the graph again. What takes the time, running a C++ compiler for each
kernel, is what the snapshot saves there.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from e2e.engine_helpers import get_json, post_json
from harness.wait import wait_for
from loopback.group import Group, Layout, group
from moe_operator.agent.compile_snapshot import Content, scan

pytestmark = pytest.mark.timeout(900)


def libraries(content: Content) -> dict[str, int]:
    """Compiled kernels, with when they were."""
    return {name: entry.mtime for name, entry in content.items() if name.endswith(".so")}


def answer(made: Group) -> str:
    body = {"model": "tiny", "prompt": "count", "max_tokens": 8, "temperature": 0, "ignore_eos": True}
    text: str = post_json(made.pods[0].url, "/v1/completions", body)["choices"][0]["text"]
    return text


def seconds(made: Group) -> float:
    """What the engine says its start took after it had the weights."""
    spans: dict[str, float] = get_json(made.pods[0].url, "/moe/v1/state")["phases"]
    return spans["init"]


def test_a_new_pod_runs_what_an_earlier_one_compiled(tmp_path: Path) -> None:
    """The same folder in both, as in containers; between them it is gone, as an emptyDir goes with its pod."""
    folder, store = tmp_path / "cache/compiled", tmp_path / "store"
    layout = Layout(subnet="127.30.20")
    environment = {
        "VLLM_CACHE_ROOT": str(folder / "vllm"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "MOE_AGENT_COMPILED": str(folder),
        "MOE_AGENT_COMPILED_STORE": str(store),
        "MOE_AGENT_COMPILED_KEY": "0123456789abcdef",
    }
    compiling = ["--no-enforce-eager"]
    with group(layout, arguments=compiling, environment=environment) as first:
        first.wait_ready(600)
        assert "Compiled kernels: no snapshot yet." in first.pods[0].log
        said = answer(first)
        wait_for("a snapshot", lambda: any(store.glob("*.tar.gz")), seconds=180)
        wait_for("the line about it", lambda: "published as" in first.pods[0].log, seconds=30)
        before, compiled = seconds(first), scan(folder)
    assert libraries(compiled), "nothing was compiled: this shows nothing"
    shutil.rmtree(folder.parent)

    with group(layout, arguments=compiling, environment=environment) as second:
        second.wait_ready(600)
        log, after = second.pods[0].log, seconds(second)
        assert answer(second) == said
        now = scan(folder)
    (snapshot,) = store.glob("*.tar.gz")
    taken = re.search(r"Compiled kernels: (\d+) files of .* from (\S+) in", log)
    assert taken, log[-4000:]
    assert (int(taken[1]), taken[2]) == (len(compiled), snapshot.name)
    # Not one library is new, or was written again.
    assert libraries(now) == libraries(compiled)
    # Its own word that it found the saved graph: loaded, or why it could not (see above).
    own = re.search(
        rf"(Directly load AOT compilation|load failure) from (path )?{re.escape(str(folder))}", log
    )
    assert own, log[-4000:]
    size = snapshot.stat().st_size / 2**20
    print(
        f"start after weights: {before:.1f} s, with the snapshot {after:.1f} s; {len(libraries(compiled))} libraries,"
        f" {len(compiled)} files, snapshot of {size:.1f} MiB; {taken[0]}; vLLM: {own[0]}"
    )
