"""A finished run, for all tests of hosts that want one."""

from __future__ import annotations

import pytest
import torch

from tests.integrations.hub_models import Run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Run(tmp_path_factory.mktemp("run"))
