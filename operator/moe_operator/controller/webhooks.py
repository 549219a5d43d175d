"""Admission webhooks that do not answer: the API server then refuses what it should have shown them, with a 500."""

import re

from moe_operator.api import reasons

_CALL = re.compile(r'failed calling webhook "(?P<name>[^"]+)"')
#: Webhooks are called at their Service, and in a few clusters at another URL.
_SERVICE = re.compile(r"https://(?P<service>[^./:]+)\.(?P<namespace>[^./:]+)\.svc")
#: In the name of LeaderWorkerSet's own Service, whatever namespace it is in. Kueue's webhooks for the same kind and for
#: pods carry the same names, so the webhook's name does not tell.
_OF_LWS = ("lws", "leaderworkerset")
_LONGEST = 500


def unavailable(message: str) -> tuple[str, str] | None:
    """A reason and words for an API server's message about a webhook that it could not ask; None for any other."""
    call = _CALL.search(message)
    if call is None:
        return None
    at = _SERVICE.search(message, call.end())
    words = message[call.start() :]
    if len(words) > _LONGEST:
        words = words[: _LONGEST - 1] + "…"
    if at is None:
        return reasons.WEBHOOK_UNAVAILABLE, words
    service, namespace = at["service"], at["namespace"]
    words += f"; see that the pods behind Service {service} in namespace {namespace} run"
    known = any(mark in service.lower() for mark in _OF_LWS)
    return reasons.LEADER_WORKER_SET_UNAVAILABLE if known else reasons.WEBHOOK_UNAVAILABLE, words
