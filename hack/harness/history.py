"""What objects went through: every version that a watch showed, as pods that are lost take their state along."""

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator

from harness.kubectl import JsonObject
from moe_operator.api.times import parse_time


class History:
    """Versions of objects of one kind, oldest first. `seen` grows while the watch runs."""

    def __init__(self) -> None:
        self.seen: list[JsonObject] = []

    def terminations(self) -> list[tuple[str, JsonObject]]:
        """Name of the pod and `state.terminated` of each end of a container, each once, in the order seen."""
        found: dict[str, tuple[str, JsonObject]] = {}
        for pod in list(self.seen):
            status = pod.get("status") or {}
            for one in status.get("containerStatuses") or []:
                for state in (one.get("lastState"), one.get("state")):
                    if end := (state or {}).get("terminated"):
                        found.setdefault(str(end.get("containerID")), (pod["metadata"]["name"], end))
        return list(found.values())


@contextlib.contextmanager
def watched(kind: str, namespace: str, *which: str) -> Iterator[History]:
    """Follow the objects of a kind as long as the block runs; `which`: kubectl's selectors."""
    command = ["kubectl", "get", kind, "-n", namespace, *which, "--watch", "-o", "json"]
    with subprocess.Popen([*command, "--show-managed-fields"], stdout=subprocess.PIPE, text=True) as process:
        history = History()
        reader = threading.Thread(target=_read, args=(process, history), daemon=True)
        reader.start()
        try:
            yield history
        finally:
            process.terminate()
            reader.join()


def _read(process: "subprocess.Popen[str]", history: History) -> None:
    assert process.stdout is not None
    text = ""
    # kubectl prints one indented object after the other: each ends with a brace in the first column.
    for line in process.stdout:
        text += line
        if line.startswith("}"):
            history.seen.append(json.loads(text))
            text = ""


def status_written_at(obj: JsonObject) -> float:
    """When the status was last written (s since the epoch), as the API server noted it. Raises ValueError without."""
    times = [
        parse_time(entry["time"])
        for entry in obj["metadata"].get("managedFields") or []
        if entry.get("subresource") == "status"
    ]
    return max(time for time in times if time is not None)
