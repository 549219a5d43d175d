"""Who may connect to engines: a section of the operator's configuration.

network:
  policies: Ingress
  clients:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: gateways}}
  dns:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Policies(StrEnum):
    """Whether the operator makes a NetworkPolicy for each deployment."""

    INGRESS = "Ingress"
    """Clients reach the HTTP port, and nothing but a group's own pods its other ports."""
    DISABLED = "Disabled"
    """None: the site has its own."""


@dataclass(frozen=True)
class Network:
    """What the operator's NetworkPolicies say."""

    policies: Policies = Policies.INGRESS
    clients: tuple[dict[str, Any], ...] = ()
    """Peers, as a NetworkPolicy writes them, that may reach the HTTP port beside pods of the same namespace and of the
    operator's; empty: anyone may."""
    dns: tuple[dict[str, Any], ...] = ()
    """Peers that answer for names, where egress is denied; empty: port 53 of any address."""
    operator_namespace: str | None = None
    """Where the operator runs: it asks engines too. Not in the file."""


_Peers = Annotated[list[dict[str, Any]], Field(max_length=64)]


class NetworkForm(BaseModel):
    """`network` in the file."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, strict=True)

    policies: Annotated[Policies, Field(strict=False)] = Policies.INGRESS
    clients: _Peers = Field(default_factory=list)
    dns: _Peers = Field(default_factory=list)

    def network(self) -> Network:
        """What it says."""
        return Network(self.policies, tuple(self.clients), tuple(self.dns))
