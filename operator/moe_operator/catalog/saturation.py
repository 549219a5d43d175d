"""What ends a group's capacity: shared by what estimates it (`planner.group_capacity`) and what reads it off engines
(`autoscaler.capacity`)."""

from enum import StrEnum

#: Share of the KV cache beyond which vLLM begins to preempt: sequences grow after they were admitted.
KV_LIMIT = 0.9


class Resource(StrEnum):
    """What a group runs out of first."""

    KV_CACHE = "KvCache"
    REQUEST_SLOTS = "RequestSlots"
    STEP_TIME = "StepTime"
