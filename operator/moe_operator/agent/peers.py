"""Who the other pods of the group are, by LeaderWorkerSet's naming."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

DEFAULT_PORT = 8000


@dataclass(frozen=True)
class Peer:
    """Another pod of the group.

    Attributes:
        host: DNS name or address. port: its HTTP port. pod: its name if known. An answer from a pod of
        another name, behind an address used again, is not its answer.
    """

    host: str
    port: int
    pod: str = ""

    @property
    def address(self) -> str:
        """Host and port as a user reads them."""
        return f"{self.host}:{self.port}"


def peers_of_group(environ: Mapping[str, str]) -> tuple[Peer, ...]:
    """The group's other pods.

    MOE_AGENT_PEERS, a comma-separated list of host:port, wins. Else they follow from what LeaderWorkerSet
    sets: the leader's name is LWS_LEADER_ADDRESS, `<leader pod>.<subdomain>`, and worker i of LWS_GROUP_SIZE
    - 1 is `<leader pod>-<i>.<subdomain>`; this pod is LWS_WORKER_INDEX (the leader is 0). MOE_AGENT_PORT is
    their port.

    Raises:
        ValueError: if a variable cannot be read.
    """
    listed = environ.get("MOE_AGENT_PEERS")
    if listed:
        return tuple(_parse(entry.strip()) for entry in listed.split(",") if entry.strip())
    leader = environ.get("LWS_LEADER_ADDRESS")
    size = _integer(environ, "LWS_GROUP_SIZE", 1)
    if not leader or size < 2:
        return ()
    if "LWS_WORKER_INDEX" not in environ:
        raise ValueError(
            "LWS_WORKER_INDEX is not set though LWS_LEADER_ADDRESS is: which pod of the group is this?"
        )
    own = _integer(environ, "LWS_WORKER_INDEX", 0)
    port = _integer(environ, "MOE_AGENT_PORT", DEFAULT_PORT)
    leader_pod, _, subdomain = leader.partition(".")
    pods = [leader_pod, *(f"{leader_pod}-{index}" for index in range(1, size))]
    return tuple(
        Peer(f"{pod}.{subdomain}" if subdomain else pod, port, pod)
        for index, pod in enumerate(pods)
        if index != own
    )


def _parse(entry: str) -> Peer:
    host, _, port = entry.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"MOE_AGENT_PEERS: {entry!r} is not host:port")
    return Peer(host.strip("[]"), int(port))


def _integer(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name)
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name} must be a whole number, not {text!r}") from None
