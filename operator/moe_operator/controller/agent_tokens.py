"""The tokens of groups, from the key that the leader reads when it begins to lead."""

from moe_operator.resources.agent_token import agent_token, verifier_of


class AgentTokens:
    """Without a key there are no tokens: agents then let anyone drain."""

    def __init__(self) -> None:
        self._key: bytes | None = None

    def use(self, key: bytes) -> None:
        """Derive from this key from now on."""
        self._key = key

    def token(self, deployment_uid: str, group: str) -> str | None:
        """What the operator sends to pods of this group."""
        return None if self._key is None else agent_token(self._key, deployment_uid, group)

    def verifier(self, deployment_uid: str, group: str) -> str | None:
        """What pods of this group check it with."""
        token = self.token(deployment_uid, group)
        return None if token is None else verifier_of(token)
