"""What the agent is told by its container's environment."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .peers import Peer, peers_of_group


@dataclass(frozen=True)
class Settings:
    """The agent's configuration in one pod.

    Attributes:
        directory: folder shared by the pod's processes (an emptyDir), from MOE_AGENT_DIR.
        peers: the other pods of the group, from MOE_AGENT_PEERS or LeaderWorkerSet's variables.
        verifier: SHA-256, in hex, of the token by which the operator proves itself, from MOE_AGENT_VERIFIER; empty:
            anyone may drain.
        api_key: what clients must send, from VLLM_API_KEY; empty: nothing.
        pod: this pod's name, from POD_NAME.
        incarnation: passed through from MOE_AGENT_INCARNATION for the operator to recognise.
        scheme: how peers are asked, "http" or "https" (when vLLM itself serves TLS), from MOE_AGENT_SCHEME.
        interval: seconds between two checks of a peer, from MOE_AGENT_PEER_INTERVAL.
        timeout: seconds after which a check has failed, from MOE_AGENT_PEER_TIMEOUT.
        failures: failed checks in a row that make a peer down, from MOE_AGENT_PEER_FAILURES.
    """

    directory: Path
    peers: tuple[Peer, ...] = ()
    verifier: str = ""
    api_key: str = field(default="", repr=False)
    pod: str = ""
    incarnation: str = ""
    scheme: str = "http"
    interval: float = 1.0
    timeout: float = 1.0
    failures: int = 2


def read_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings from the environment.

    Raises:
        ValueError: if a variable cannot be read; the engine then does not start, and its log says why.
    """
    return Settings(
        directory=Path(environ.get("MOE_AGENT_DIR") or Path(tempfile.gettempdir()) / "moe-agent"),
        peers=peers_of_group(environ),
        verifier=environ.get("MOE_AGENT_VERIFIER", ""),
        api_key=environ.get("VLLM_API_KEY", ""),
        pod=environ.get("POD_NAME", ""),
        incarnation=environ.get("MOE_AGENT_INCARNATION", ""),
        scheme=environ.get("MOE_AGENT_SCHEME", "http"),
        interval=_positive(environ, "MOE_AGENT_PEER_INTERVAL", 1.0),
        timeout=_positive(environ, "MOE_AGENT_PEER_TIMEOUT", 1.0),
        failures=int(_positive(environ, "MOE_AGENT_PEER_FAILURES", 2)),
    )


def _positive(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if value <= 0:
        raise ValueError(f"{name} must be a number above 0, not {text!r}")
    return value
