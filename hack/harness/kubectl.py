"""kubectl and helm as functions. Both come from PATH, the cluster from KUBECONFIG."""

import json
import subprocess
from typing import Any

import yaml

JsonObject = dict[str, Any]


class CommandError(RuntimeError):
    """A command failed; the message holds what it said."""


def run(*command: str, stdin: str | None = None, timeout: float = 120, check: bool = True) -> str:
    """Standard output of a command. Raises CommandError with its error output when it fails."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode != 0:
        raise CommandError(
            f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip() or done.stdout.strip()}"
        )
    return done.stdout


def kubectl(*args: str, stdin: str | None = None, timeout: float = 120, check: bool = True) -> str:
    """Standard output of kubectl."""
    return run("kubectl", *args, stdin=stdin, timeout=timeout, check=check)


def get(kind: str, name: str, namespace: str | None = None) -> JsonObject | None:
    """One object, or None if there is none of this name."""
    where = ["-n", namespace] if namespace else []
    text = kubectl("get", kind, name, *where, "-o", "json", "--ignore-not-found")
    return json.loads(text) if text.strip() else None


def items(kind: str, namespace: str | None = None, selector: str = "") -> list[JsonObject]:
    """All objects of a kind that match."""
    where = ["-n", namespace] if namespace else ["-A"]
    text = kubectl("get", kind, *where, "-o", "json", *(["-l", selector] if selector else []))
    found: list[JsonObject] = json.loads(text)["items"]
    return found


def apply(*objects: JsonObject, manager: str = "kubectl") -> str:
    """Server-side apply, as GitOps tools do."""
    text = yaml.safe_dump_all(objects)
    return kubectl("apply", "--server-side", f"--field-manager={manager}", "-f", "-", stdin=text)


def helm(*args: str, timeout: float = 300) -> str:
    """Standard output of helm."""
    return run("helm", *args, timeout=timeout)
