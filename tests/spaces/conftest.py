"""A CPU Space as people get it, for every file of this process that leaves it running."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.space_process import SpaceProcess, running_space


@pytest.fixture(scope="session")
def cpu_space() -> Iterator[SpaceProcess]:
    with running_space("cpu") as running:
        yield running
