"""One scenario: load and watch around a change, and the report at the end."""

import dataclasses
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from harness.wait import wait_for
from moe_operator.api import names
from traffic.arrivals import Mix, poisson
from traffic.changes import GroupLife
from traffic.clients import Load
from traffic.counts import Record, count, lost
from traffic.report import Report, publish
from traffic.watch import Watch


class Run:
    """Load against a deployment's Service, by its DNS name as clients in the cluster know it."""

    def __init__(
        self, scenario: str, deployment: str, namespace: str, *, layout: str, mix: Mix, seed: int
    ) -> None:
        self._scenario, self._layout, self._mix, self._seed = scenario, layout, mix, seed
        url = f"http://{deployment}.{namespace}.svc.cluster.local:{names.HTTP_PORT}/v1"
        self.load = Load(url, _served_name, poisson(mix, seed), mix)
        self.watch = Watch(deployment, namespace, self.load.now, self.load.id_prefix)
        self.marks: dict[str, float] = {}
        self.records: list[Record] = []

    def __enter__(self) -> Self:
        print(f"{self._scenario}: Poisson {self._mix.rate:g} a second, seed {self._seed}", flush=True)
        self.load.__enter__()
        self.watch.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.load.__exit__(kind, error, trace)
        self.watch.__exit__(kind, error, trace)

    def warm(self, requests: int = 30) -> None:
        """Until so many requests were sent: pools are filled by then."""
        seconds = 60 + 2 * requests / self._mix.rate
        wait_for(f"{requests} requests sent", lambda: self.load.sent >= requests, seconds=seconds)

    def mark(self, what: str) -> float:
        """Note that something is done now; the time, in seconds since the load began."""
        self.marks[what] = self.load.now()
        return self.marks[what]

    def settle(self, seconds: float = 15.0) -> None:
        """Keep the load on for a while: what comes late belongs to the change too."""
        until = time.monotonic() + seconds
        wait_for(
            "the load after the change", lambda: time.monotonic() > until, seconds=seconds + 10, every=0.5
        )

    def finish(self, at_least: int) -> Report:
        """Send at least so many requests in all, long streams apart, wait for their ends, and publish the report."""
        records = self.load.finish(at_least)
        taken = self.watch.taken
        self.records = [dataclasses.replace(r, pod=taken.get(r.number, "")) for r in records]
        report = Report(
            scenario=self._scenario,
            layout=self._layout,
            seed=self._seed,
            rate=self._mix.rate,
            seconds=self.load.now(),
            counts=count(self.records),
            groups=self.groups(),
            marks=self.marks,
            lag=self.load.lag,
            lost=lost(self.records),
        )
        publish(report)
        return report

    def groups(self) -> Sequence[GroupLife]:
        """The groups' times up to now."""
        return self.watch.groups()


_served_name = "tiny-moe"
