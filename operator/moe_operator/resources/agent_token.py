"""How the operator proves itself to the agents of a group, without a secret in any namespace but its own.

The token of a group is derived from one key that only the operator has; its pods carry the token's hash. So a pod, or
who reads one, learns nothing that opens another group, and the operator needs no right to users' Secrets.
"""

import hashlib
import hmac

#: Bytes of the operator's key.
KEY_BYTES = 32


def agent_token(key: bytes, deployment_uid: str, group: str) -> str:
    """64 hex digits: HMAC-SHA256 over the deployment's uid and the group's name."""
    return hmac.new(key, f"agent-token\0{deployment_uid}\0{group}".encode(), hashlib.sha256).hexdigest()


def verifier_of(token: str) -> str:
    """SHA-256 of a token in hex: what the pods carry. The token has 256 bits, so the hash need not be slow."""
    return hashlib.sha256(token.encode()).hexdigest()
