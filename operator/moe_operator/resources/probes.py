"""Probes of the engine container.

There is no liveness probe. What it could do is restart one engine in place, and that never heals a group: a
restarted rank cannot rejoin, so the operator replaces the group anyway. It could do harm: an engine that
answers late under load would be killed with all requests of its group. An engine that dies ends its own
process, and one that hangs is found by its lack of progress.
"""

from typing import Any

from moe_operator.api import names

_DAY = 24 * 3600
_STARTUP_PERIOD = 5


def startup_probe() -> dict[str, Any]:
    """Holds the readiness probe back while weights load: vLLM accepts no connection before its engine is up.

    The ceiling of a day is not a deadline, only what Kubernetes wants to be told: the operator's own start
    deadline replaces the group, and can be changed without touching the pods.
    """
    return {
        "httpGet": {"path": "/health", "port": names.HTTP_PORT_NAME},
        "periodSeconds": _STARTUP_PERIOD,
        "timeoutSeconds": 2,
        "failureThreshold": _DAY // _STARTUP_PERIOD,
    }


def readiness_probe(*, agent: bool) -> dict[str, Any]:
    """Ready while the whole group answers, as the agent tells; without it, while this pod's server does.

    Every second, and out after two misses: half a group takes itself out of traffic even while the operator
    is away.
    """
    return {
        "httpGet": {"path": "/moe/v1/ready" if agent else "/v1/models", "port": names.HTTP_PORT_NAME},
        "periodSeconds": 1,
        "timeoutSeconds": 2,
        "failureThreshold": 2,
    }
