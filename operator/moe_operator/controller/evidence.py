"""What engines that were lost left in their containers' logs, looked at while their pods are still there."""

import asyncio

from moe_operator.api import names, reasons
from moe_operator.api.status import Cause
from moe_operator.controller.causes import explained
from moe_operator.controller.engine_errors import Weight, read
from moe_operator.controller.kube import KubeClient, KubeError

#: Room for a traceback, of about 90 lines, of each of eight ranks' processes, and what the server says at the end.
LINES = 1000
#: Seconds that logs are looked for: a kubelet that is gone must not keep the group from being replaced.
LOOK = 3.0


async def with_logs(client: KubeClient, namespace: str, cause: Cause) -> Cause:
    """The cause with what the log says, where the termination message told nothing or no more than an end: libraries
    write to standard error, and a process that is killed writes nothing at all. Without a log the cause is as it was.
    """
    if cause.reason != reasons.ENGINE_EXITED or cause.pod is None:
        return cause
    try:
        async with asyncio.timeout(LOOK):
            return await _told(client, namespace, cause, cause.pod)
    except TimeoutError:
        return cause


async def _told(client: KubeClient, namespace: str, cause: Cause, pod: str) -> Cause:
    for previous in (True, False):
        try:
            text = await client.pod_logs(
                namespace, pod, names.ENGINE_CONTAINER, previous=previous, tail_lines=LINES
            )
        except KubeError:
            continue
        found = read(text)
        if found.weight is Weight.SILENT:
            continue
        if found.reason == reasons.ENGINE_EXITED and cause.output:
            return cause
        how = cause.message.partition(": ")[0]
        return explained(cause.model_copy(update={"message": how}), found)
    return cause
