"""What all tests share: determinism, no network, and where the reference data lies."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Before anything imports a hub's client: no test may depend on a network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis
import pytest
import torch
from huggingface_hub import constants
from torch import Tensor

import sparseformers  # noqa: F401  # lets tests import torchvision beside any build of PyTorch
from sparseformers.named import NAMED_CONFIGS
from sparseformers.released import config_from_state

if TYPE_CHECKING:
    from sparseformers.train import RunFolder

hypothesis.settings.register_profile("deterministic", derandomize=True, deadline=None, max_examples=50, database=None)
hypothesis.settings.load_profile("deterministic")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs behind it so, and tests that end something by Ctrl-C would wait for good.
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Test processes share the machine's cores, and sums are added in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _fixed_seed() -> Iterator[None]:
    """Each test draws the same random numbers, whichever ran before it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(autouse=True)
def _no_pictures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Runs of a test draw no pictures and write no report, but where it is marked ``draws``; shared runs always do."""
    with pytest.MonkeyPatch.context() as patch:  # not the test's own, which it may undo
        if request.node.get_closest_marker("draws") is None:
            for callback in ("Pictures", "ReportPage"):
                patch.setattr(f"sparseformers.train.report.{callback}.on_end", lambda *_: None)
        yield


class _FailedReports(logging.Handler):
    """Notes reports that could not be made, which stops no run."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("The report of the run could not be made"):
            self.told.append(self.format(record))


@pytest.fixture(autouse=True)
def _reports_can_be_made(request: pytest.FixtureRequest) -> Iterator[None]:
    """A report that could not be made stops no run, but it fails the test."""
    handler = _FailedReports()
    logging.getLogger("sparseformers").addHandler(handler)
    request.node.stash[FAILED_REPORTS] = handler.told
    yield
    logging.getLogger("sparseformers").removeHandler(handler)
    if "reports_may_fail" not in request.fixturenames:
        assert not handler.told, "".join(handler.told)


FAILED_REPORTS = pytest.StashKey[list[str]]()


@pytest.fixture
def reports_may_fail(request: pytest.FixtureRequest) -> list[str]:
    """The reports that could not be made, in a test that wants it so."""
    return request.node.stash[FAILED_REPORTS]


@pytest.fixture
def dead_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A Hugging Face hub on a port that nothing listens on; gives the folder of its cache, which is empty."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The reference data that comes with the tests."""
    return ROOT / "tests" / "fixtures"


@pytest.fixture
def weights(fixtures: Path) -> dict[str, Tensor]:
    """The weights of a small model of v1 under the authors' names."""
    from tests.released.reference import small_weights

    return small_weights(fixtures, "v1")


@pytest.fixture
def tiny_is_small(weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """As if v1 tiny were as small as that model."""
    monkeypatch.setitem(NAMED_CONFIGS, "sf_v1_tiny", config_from_state(weights))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the repository with data too large for it; tests that need it are skipped where it is absent."""
    folder = (ROOT / ".." / "shared").resolve()
    if not folder.is_dir():
        pytest.skip("the folder 'shared' beside the repository, with larger reference data, is absent")
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run, to be read and not to be changed."""
    from tests.train.finished import finish_run

    return finish_run(tmp_path_factory.mktemp("finished"))
