import pytest
import torch

from sparseformers.train import RunSummary, bootstrap
from tests.train.runs import tiny_settings


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunSummary:
    """A finished run of a tiny student."""
    folder = tmp_path_factory.mktemp("run")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return bootstrap(tiny_settings(folder), folder / "run")
