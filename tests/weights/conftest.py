"""A hub for one test."""

from collections.abc import Iterator

import pytest

from weights.hub_server import HubServer
from weights.program import model


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        server.add("acme/moe", model())
        yield server
