"""The operator's own key, in a Secret of its own namespace: made once, and read by whoever leads."""

import base64
import binascii
from collections.abc import Callable

from moe_operator.api import names
from moe_operator.controller.kube import SECRET, ConflictError, KubeClient, Obj
from moe_operator.resources.agent_token import KEY_BYTES

_FIELD = "key"


class AgentKeyError(Exception):
    """The Secret is there and holds no key of ours; the message says what to do."""


async def load_agent_key(
    client: KubeClient, namespace: str, name: str, draw: Callable[[int], bytes]
) -> bytes:
    """The key; made if there is none. `draw(n)` gives n random bytes. Raises KubeError, AgentKeyError."""
    found = await client.get(SECRET, namespace, name)
    if found is None:
        made = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY},
            },
            "type": "Opaque",
            "immutable": True,
            "data": {_FIELD: base64.b64encode(draw(KEY_BYTES)).decode()},
        }
        try:
            found = await client.create(SECRET, made)
        except ConflictError:
            # Another replica was first, or its answer was lost: what is there is what counts.
            found = await client.get(SECRET, namespace, name) or made
    return _key(found)


def _key(secret: Obj) -> bytes:
    where = f"Secret {secret['metadata']['namespace']}/{secret['metadata']['name']}"
    try:
        key = base64.b64decode((secret.get("data") or {})[_FIELD], validate=True)
    except (KeyError, TypeError, binascii.Error) as error:
        raise AgentKeyError(f"{where} has no usable {_FIELD!r}: delete it, and it is made anew") from error
    if len(key) < KEY_BYTES:
        raise AgentKeyError(
            f"{where}: {_FIELD!r} has {len(key)} bytes, fewer than {KEY_BYTES}: delete it, and it is made anew"
        )
    return key
