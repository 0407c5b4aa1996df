import os
import signal
from pathlib import Path

import pytest
import torch
from rich.console import Console

from sparseformers.data import SampleStream, batch_loader, images_on
from sparseformers.errors import DataError, RunStopped
from sparseformers.inheritance.fitted import CoarseTokens
from sparseformers.processes import make_accelerator
from sparseformers.saving import load
from sparseformers.train import BootstrapConfig, bootstrap, loop, resume
from sparseformers.train.objective import unexplained_variance
from sparseformers.train.setup import fit_front, gather_parts
from tests.refusals import refused
from tests.train.runs import at_each_step, tiny_settings


@pytest.fixture
def settings(tmp_path: Path) -> BootstrapConfig:
    fitted: dict[str, object] = {"front": "focusing", "start": "fitted"}
    return tiny_settings(tmp_path, photographs=24).with_(tokens=4, samples=1, lr=1e-12, evaluations=1, **fitted)


def test_bootstrap__begins_nearer_to_the_teacher_and_says_how_near(settings: BootstrapConfig, tmp_path: Path) -> None:
    fitted = bootstrap(settings, tmp_path / "fitted").alignment
    random = bootstrap(settings.with_(start="random"), tmp_path / "random").alignment
    assert fitted.cosine_mean > random.cosine_mean + 0.3
    assert "the fitted start leaves 0." in (tmp_path / "fitted" / "train.log").read_text(encoding="utf-8")


def test_resume__does_not_fit_again(settings: BootstrapConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_each_step(monkeypatch, lambda _step, _batch, samples: samples == 4 and os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(RunStopped):
        bootstrap(settings.with_(samples=12), tmp_path / "run")
    monkeypatch.undo()
    resume(tmp_path / "run")
    log = (tmp_path / "run" / "train.log").read_text(encoding="utf-8")
    assert "resumed from 8 images seen" in log
    assert log.count("the fitted start leaves") == 1


def test_fit_front__with_one_image_that_can_be_read(settings: BootstrapConfig, tmp_path: Path) -> None:
    parts = gather_parts(settings, device=torch.device("cpu"))
    for place in range(1, len(parts.train)):
        Path(parts.train.name(place)).write_bytes(b"no image")
    with refused(DataError, "Fewer than two of the 20 images that the start was to be fitted on", "--data"):
        fit_front(parts, None, make_accelerator(), Console(quiet=True))


def test_dense_targets__bring_it_nearer(settings: BootstrapConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings.with_(samples=80, lr=2e-3, evaluations=1)
    for name, weight in (("plain", 0.0), ("dense", 10.0)):
        monkeypatch.setattr(loop, "COARSE_WEIGHT", weight)
        bootstrap(settings, tmp_path / name)
    parts = gather_parts(settings, device=torch.device("cpu"))
    coarse = CoarseTokens(parts.teacher, tokens=4, depth=parts.inheritance.provenance.shares.truncate)
    stream = SampleStream(parts.train.sample_order(), batch_size=16, seed=1, total=16)
    images = images_on("cpu", next(iter(batch_loader(parts.training_views(), stream, workers=0))).images)
    with torch.inference_mode():
        wanted = coarse.latent(images)
        plain, dense = (unexplained_variance(load(tmp_path / name)(images).focused, wanted).item() for name in ("plain", "dense"))
    assert dense < 0.8 * plain
