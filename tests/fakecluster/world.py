"""The whole cluster but the operator: API server, controllers, machines and engines, and what may go wrong there."""

import asyncio

from fakecluster.accelerators import Exporters
from fakecluster.api_server import ApiServer
from fakecluster.clock import Clock
from fakecluster.collector import GarbageCollector
from fakecluster.controller import Timers
from fakecluster.downloads import Downloads
from fakecluster.dra import ClaimController, ComputeDomainController
from fakecluster.engines import Engine, Engines, EngineSettings
from fakecluster.kubelet import Kubelets
from fakecluster.lws import LeaderWorkerSetController
from fakecluster.nodes import Nodes, Scheduler
from fakecluster.objects import labels_of
from fakecluster.statefulset import StatefulSetController
from fakecluster.traffic import Endpoints, MemoryEngineClient
from moe_operator.api import names
from moe_operator.controller.kube import POD, Obj


class World:
    """A cluster in virtual time. Must be made inside a running virtual loop."""

    def __init__(self, nodes: int = 6, settings: EngineSettings | None = None) -> None:
        self.clock = Clock(asyncio.get_running_loop())
        self.timers = Timers()
        self.server = ApiServer(self.clock)
        self.nodes = Nodes(self.server, self.timers)
        self.engines = Engines(self.timers, self.clock, self.nodes.alive, settings or EngineSettings())
        self.kubelets = Kubelets(self.server, self.timers, self.engines, self.nodes.alive)
        self.endpoints = Endpoints(self.server, self.timers, self.engines)
        self.engine_client = MemoryEngineClient(self.engines)
        self.nodes.reachability_changed = self._reachability_changed
        self.nodes.returned = self.kubelets.wake_node
        self.stateful_sets = StatefulSetController(self.server, self.timers)
        self.exporters = Exporters(self.nodes, now=lambda: self.clock.elapsed)
        self.downloads = Downloads(self.server, self.timers)
        self.leader_worker_sets = LeaderWorkerSetController(self.server, self.timers)
        self.controllers = [
            GarbageCollector(self.server, self.timers),
            self.leader_worker_sets,
            Scheduler(self.server, self.timers),
            ClaimController(self.server, self.timers),
        ]
        self.compute_domains = ComputeDomainController(self.server, self.timers)
        for index in range(nodes):
            self.nodes.add(f"node-{index}")

    @property
    def settings(self) -> EngineSettings:
        """How engines behave; changes count from now on."""
        return self.engines.settings

    def logs(self, namespace: str, pod: str, previous: bool) -> str:
        """What `kubectl logs` would give."""
        obj = self.server.get(POD, namespace, pod)
        if obj is not None and names.LABEL_JOB in labels_of(obj):
            return self.downloads.logs(obj)
        return self.kubelets.logs(namespace, pod, previous)

    def stop(self) -> None:
        """Nothing happens any more."""
        self.timers.stop()

    def cut_off(self) -> None:
        """No operator reaches the API server any more, and no watch delivers anything. The cluster itself goes on."""
        self.server.unreachable = True

    def reconnect(self) -> None:
        """The API server answers the operators again."""
        self.server.unreachable = False
        for back in self.server.back_listeners:
            back()

    # --- knobs ------------------------------------------------------------------------------------

    def engine(self, pod: str, namespace: str = "serving") -> Engine:
        """The engine that runs in a pod. Raises KeyError if there is none."""
        obj = self.server.get(POD, namespace, pod)
        if obj is None:
            raise KeyError(f"no pod {pod}")
        return self.engines.by_pod[obj["metadata"]["uid"]]

    def crash_engine(self, pod: str, message: str = "", code: int = 137, reason: str = "Error") -> None:
        """The engine ends; `message` is what the agent wrote to its termination message."""
        self.engines.end(self.engine(pod), code, reason, message)

    def print_in(self, pod: str, text: str) -> None:
        """The engine writes to its container's log."""
        self.kubelets.print(self.pod(pod), text)

    def hang_engine(self, pod: str) -> None:
        """The engine computes nothing any more."""
        self.engines.hang(self.engine(pod))

    def delete_pod(self, pod: str, namespace: str = "serving") -> None:
        """Somebody runs `kubectl delete pod`."""
        obj = self.pod(pod, namespace)
        self.server.delete(POD, namespace, pod, "somebody", uid=obj["metadata"]["uid"])

    def pod(self, name: str, namespace: str = "serving") -> Obj:
        """A pod. Raises KeyError if there is none."""
        obj = self.server.get(POD, namespace, name)
        if obj is None:
            raise KeyError(f"no pod {name}")
        return obj

    def _reachability_changed(self, node: str) -> None:
        for engine in list(self.engines.by_pod.values()):
            if engine.node == node:
                for one in engine.cohort:
                    self.engines.changed(one)
