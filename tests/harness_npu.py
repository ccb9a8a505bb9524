"""Fixtures of the tests on simulated NPUs: `pytest_plugins = "harness_npu"`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from npu_simulation.build import NoSimulation, environment
from npu_simulation.worker import Worker


@pytest.fixture(scope="session")
def npu_environment(tmp_path_factory) -> dict[str, str]:
    try:
        return environment(tmp_path_factory.mktemp("npu"))
    except NoSimulation as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def npu(npu_environment) -> Iterator[Worker]:
    with Worker(npu_environment) as worker:
        yield worker
