"""From a container's spec to what to run."""

from __future__ import annotations

from localcluster.kubelet import environment, quantity
from localcluster.kubelet.apiclient import Obj
from localcluster.kubelet.environment import ConfigError, Lookup, PodFacts
from localcluster.kubelet.images import Image
from localcluster.kubelet.launch import Launch
from localcluster.kubelet.objects import ServiceTable
from localcluster.kubelet.podvolumes import PodVolumes


def oom_score_adj(pod: Obj, container: Obj, node_memory: int) -> int:
    """What a kubelet sets by quality of service: the kernel ends BestEffort first, and pods before the control plane.

    ``node_memory`` in bytes.
    """
    quality = (pod.get("status") or {}).get("qosClass")
    if quality == "BestEffort":
        return 1000
    request = ((container.get("resources") or {}).get("requests") or {}).get("memory", "0")
    if quality == "Guaranteed" or not node_memory:
        # A kubelet uses -997, which needs privileges; 2 is its smallest value for other pods.
        return 2
    return min(max(1000 - 1000 * quantity.whole(request) // node_memory, 3), 999)


def prepare_launch(
    pod: Obj,
    container: Obj,
    image: Image,
    facts: PodFacts,
    lookup: Lookup,
    services: ServiceTable,
    volumes: PodVolumes,
) -> Launch:
    """Raises ConfigError."""
    links = pod["spec"].get("enableServiceLinks", True)
    linked = environment.service_links(services.for_pod(pod["metadata"]["namespace"], links))
    base = {
        "PATH": image.path,
        "HOSTNAME": (pod["spec"].get("hostname") or pod["metadata"]["name"])[:63],
        "HOME": "/root",
        **{name: environment.expand(value, {"PATH": image.path}) for name, value in image.env.items()},
    }
    given = environment.build(pod, container, facts, lookup, linked)
    env = {**base, **given}
    # $(NAME) sees what the pod gives, not what the image brings.
    argv = image.argv(
        [environment.expand(word, given) for word in container.get("command") or []],
        [environment.expand(word, given) for word in container.get("args") or []],
    )
    if not argv:
        raise ConfigError(
            f"no command specified: neither container {container['name']} nor image {container['image']} gives one"
        )
    security = container.get("securityContext") or {}
    return Launch(
        argv=argv,
        env=env,
        cwd=container.get("workingDir") or image.working_dir,
        mounts=volumes.mounts(pod, container, given),
        shm=volumes.shm,
        read_only=bool(security.get("readOnlyRootFilesystem")),
        oom_score_adj=oom_score_adj(pod, container, quantity.whole(facts.allocatable.get("memory", "0"))),
        pod_ip=facts.pod_ip,
    )
