"""The agent's files as they are mounted into the engine's container, taken from this distribution's own
sources.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources

PACKAGE = "moe_agent"
MIDDLEWARE = f"{PACKAGE}.middleware.AgentMiddleware"
# A ConfigMap holds at most 1 MiB and is read whole by every watcher; the agent is meant to stay far below.
MAX_BYTES = 200 * 1024

_VERSION = "1"


@cache
def agent_hash() -> str:
    """A short hash of the agent's sources: pods that mount another one have another revision."""
    digest = hashlib.sha256()
    for path, content in sorted(_sources().items()):
        digest.update(path.encode() + b"\0" + content.encode() + b"\0")
    return digest.hexdigest()[:12]


@cache
def agent_files() -> dict[str, str]:
    """Path below the mount point -> content: the package `moe_agent`, and the metadata by which vLLM finds
    its plugin.

    Read once and shared: not to be changed. The mount point must be on PYTHONPATH. Paths hold slashes; see
    `config_map_key` for a ConfigMap's flat keys.

    Raises:
        ValueError: if the agent has outgrown what may be mounted from a ConfigMap.
    """
    info = f"{PACKAGE}-{_VERSION}.dist-info"
    files = {
        **_sources(),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: moe-agent\nVersion: {_VERSION}+{agent_hash()}\n",
        f"{info}/entry_points.txt": f"[vllm.general_plugins]\nmoe_agent = {PACKAGE}.plugin:register\n",
    }
    size = sum(len(content.encode()) for content in files.values())
    if size > MAX_BYTES:
        raise ValueError(f"the agent's files are {size} bytes in all, above the {MAX_BYTES} that are mounted")
    return files


def config_map_key(path: str) -> str:
    """The ConfigMap key for a path of `agent_files`; the volume's items map it back."""
    return path.replace("/", "--")


@cache
def _sources() -> dict[str, str]:
    package = resources.files("moe_operator.agent")
    return {
        f"{PACKAGE}/{entry.name}": entry.read_text(encoding="utf-8")
        for entry in sorted(package.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".py")
    }
