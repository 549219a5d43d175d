"""Prometheus, once for all tests."""

from collections.abc import Iterator

import pytest

from harness.prometheus import Server, running


@pytest.fixture(scope="session")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("prometheus")) as server:
        yield server
