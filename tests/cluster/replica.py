"""The operator as a process of its own, for tests on a real API server."""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from cluster.runtime_helpers import until


class Replica:
    """One process of the operator."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self.log = log

    @classmethod
    async def start(
        cls, namespace: str, name: str, folder: Path, *more: str, namespaces: Sequence[str] | None = None
    ) -> "Replica":
        """With its lease in `namespace`; it serves `namespaces` (empty: all), by default that one."""
        log = folder / f"{name}.log"
        with log.open("wb") as sink:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "moe_operator.cli.operator",
                "run",
                *(f"--namespace={n}" for n in ([namespace] if namespaces is None else namespaces)),
                f"--lease-namespace={namespace}",
                f"--identity={name}",
                "--host=127.0.0.1",
                "--health-port=0",
                "--metrics-port=0",
                *more,
                stderr=sink,
            )
        return cls(process, log)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def said(self, text: str) -> dict[str, Any] | None:
        return next((line for line in self.lines() if text in line["message"]), None)

    async def ports(self) -> tuple[int, int]:
        line = await until(lambda: self.said("health on port"), "it listens")
        words = line["message"].replace(",", "").split()
        return int(words[3]), int(words[-1])

    async def page(self, path: str, metrics: bool = False) -> tuple[int, str]:
        health, other = await self.ports()
        url = f"http://127.0.0.1:{other if metrics else health}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status, await answer.text()

    async def count(self, name: str, **labels: str) -> float:
        """Sum of the samples of a metric that carry these labels."""
        _, text = await self.page("/metrics", metrics=True)
        total = 0.0
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    total += sample.value
        return total

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
