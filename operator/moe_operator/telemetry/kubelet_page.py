"""What the kubelet's `/metrics/resource` says of the memory of containers. Pure.

The working set is the memory that the kernel charges to the container's cgroup less the page cache that it has not used
lately (`memory.current - inactive_file`; with cgroup v1 `usage_in_bytes - total_inactive_file`), not below 0: resident
pages of all its processes, pages that they share once, what is in its tmpfs volumes (`/dev/shm`), kernel memory, and
the page cache in use. It is what the kubelet compares with limits when it evicts.
"""

from collections.abc import Iterable, Mapping

from moe_operator.telemetry.exporter_series import Series
from moe_operator.telemetry.ignored import Counts, Ignored
from moe_operator.telemetry.pod_labels import Pod

_WORKING_SET = "container_memory_working_set_bytes"
KUBELET_NAMES = frozenset({_WORKING_SET})
#: Bytes that no machine has.
_LARGEST = 2**50


def working_sets(series: Iterable[Series], container: str) -> tuple[Mapping[Pod, int], Counts]:
    """Bytes of this container of each pod."""
    found: dict[Pod, int] = {}
    ignored = Counts()
    for one in series:
        labels = one.labels
        pod = labels.get("namespace", ""), labels.get("pod", "")
        if one.name != _WORKING_SET or labels.get("container") != container or not all(pod):
            continue
        if not 0 <= one.value <= _LARGEST:
            ignored[Ignored.OUT_OF_RANGE] += 1
        elif found.setdefault(pod, round(one.value)) != round(one.value):
            ignored[Ignored.REPEATED_SERIES] += 1
    return found, ignored
