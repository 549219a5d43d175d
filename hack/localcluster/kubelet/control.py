"""The control socket: failures on demand. One JSON object a line in, one JSON object a line out.

node-fail     {node, pods?: "stop"|"kill"|"run"}  the node falls silent; its pods' processes are stopped (the default),
                                                  killed, or left running
node-recover  {node}                              it comes back, registering again if its Node object is gone
heartbeats    {node, on: bool}                    only the heartbeats stop or go on; pods are looked after as before
kill-pods     {node}                              SIGKILL to every container of the node
processes     {namespace, pod, container?}        pids and command lines in a pod
signal        {namespace, pod, container?, signal, match?}  a signal to a container's first process, or to every process
                                                  whose command line contains ``match``
nodes         {}                                  the nodes and how they are
Answers have ``ok``; a refusal has ``error`` with the reason.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localcluster.kubelet import processes
from localcluster.kubelet.container import Container
from localcluster.kubelet.node import NodeAgent, PodsFate

Obj = dict[str, Any]
_FATES: dict[str, PodsFate] = {"stop": "stop", "kill": "kill", "run": "run"}


class ControlError(Exception):
    """The request cannot be carried out; the text says why."""


def _private_listener(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o600)
    return listener


class Control:
    """Serves the socket for all nodes of one kubelet."""

    def __init__(self, nodes: Mapping[str, NodeAgent]) -> None:
        self._nodes = nodes
        self._server: asyncio.Server | None = None

    async def start(self, path: Path) -> None:
        listener = _private_listener(path)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self.answer(line)).encode() + b"\n")
                await writer.drain()
        except ConnectionError:
            return
        finally:
            writer.close()

    async def answer(self, line: bytes) -> Obj:
        """The answer to one request line."""
        try:
            request = json.loads(line)
            operation = getattr(self, "_op_" + str(request["op"]).replace("-", "_"), None)
            if operation is None:
                known = sorted(name[4:].replace("_", "-") for name in dir(self) if name.startswith("_op_"))
                raise ControlError(f"unknown op {request['op']!r}; known: {', '.join(known)}")
            return {"ok": True, **await operation(request)}
        except ControlError as error:
            return {"ok": False, "error": str(error)}
        except (ValueError, KeyError, TypeError) as error:
            return {"ok": False, "error": f"the request is not understood: {type(error).__name__}: {error}"}

    def _node(self, request: Obj) -> NodeAgent:
        agent = self._nodes.get(request["node"])
        if agent is None:
            raise ControlError(
                f"no node {request['node']!r}; this kubelet has: {', '.join(sorted(self._nodes))}"
            )
        return agent

    def _containers(self, request: Obj) -> list[Container]:
        for agent in self._nodes.values():
            for worker in agent.workers.values():
                metadata = worker.pod["metadata"]
                if (metadata["namespace"], metadata["name"]) == (request["namespace"], request["pod"]):
                    chosen = request.get("container")
                    found = [each for each in worker.containers.values() if chosen in (None, each.name)]
                    return [each for each in found if each.process is not None]
        raise ControlError(f"no pod {request['namespace']}/{request['pod']} on these nodes")

    async def _op_node_fail(self, request: Obj) -> Obj:
        fate = _FATES.get(request.get("pods", "stop"))
        if fate is None:
            raise ControlError(f"pods must be one of {', '.join(_FATES)}, not {request['pods']!r}")
        await self._node(request).fail(fate)
        return {"node": request["node"], "pods": fate}

    async def _op_node_recover(self, request: Obj) -> Obj:
        self._node(request).recover()
        return {"node": request["node"]}

    async def _op_heartbeats(self, request: Obj) -> Obj:
        self._node(request).heartbeats = bool(request["on"])
        return {"node": request["node"], "on": bool(request["on"])}

    async def _op_kill_pods(self, request: Obj) -> Obj:
        workers = list(self._node(request).workers.values())
        for worker in workers:
            await worker.kill_now()
        return {"pods": [worker.pod["metadata"]["name"] for worker in workers]}

    async def _op_processes(self, request: Obj) -> Obj:
        snapshot = processes.Snapshot()
        found = [
            {"container": container.name, "pid": pid, "command": processes.command_line(pid)}
            for container in self._containers(request)
            if container.process is not None
            for pid in snapshot.tree(container.process.pid)
        ]
        return {"processes": found}

    async def _op_signal(self, request: Obj) -> Obj:
        name = str(request["signal"]).upper()
        number = signal.Signals[name if name.startswith("SIG") else "SIG" + name]
        snapshot = processes.Snapshot()
        match = request.get("match")
        pids: list[int] = []
        running = self._containers(request)
        if not running:
            raise ControlError(f"no container of pod {request['pod']} is running")
        for container in running:
            if container.process is None:
                continue
            tree = snapshot.tree(container.process.pid)
            container.killed = True
            pids += [pid for pid in tree if match in processes.command_line(pid)] if match else tree[:1]
        if not pids:
            raise ControlError(f"no process of pod {request['pod']} has {match!r} in its command line")
        return {"signalled": processes.send(pids, number)}

    async def _op_nodes(self, _: Obj) -> Obj:
        return {
            "nodes": [
                {
                    "name": agent.spec.name,
                    "failed": agent.failed,
                    "heartbeats": agent.heartbeats,
                    "address": agent.network.host_ip,
                    "pods": len(agent.workers),
                }
                for agent in self._nodes.values()
            ]
        }
