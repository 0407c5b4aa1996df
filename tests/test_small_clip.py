"""The small real CLIP of ``examples/small_clip.py``, and a SparseFormer bootstrapped from it that has not seen a word."""

import json
import tarfile
from collections import Counter
from pathlib import Path

import open_clip
import pytest
import torch
from torch.testing import assert_close

from examples.small_clip import Settings, build, make
from sparseformers.cli.main import main
from sparseformers.data import evaluation_batches, find_images, images_on
from sparseformers.errors import WeightsError
from sparseformers.teachers import load_teacher
from sparseformers.teachers import open_clip as adapter

SIDE = 112  # side in pixels of its images: 64 patches
TRAIN, TEST = 8, 4  # images of each of the 101 classes: to learn from, and to be judged on


@pytest.fixture(scope="module")
def weights(shared: Path) -> Path:
    """A DINOv2 ViT-S/14, fine-tuned on Caltech-101."""
    return shared / "teacher" / "vit_s14_caltech101.safetensors"


@pytest.fixture(scope="module")
def photos(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few images of each class of Caltech-101: train/CLASS and test/CLASS."""
    folder, taken = tmp_path_factory.mktemp("photos"), Counter[str]()
    with tarfile.open(shared / "data" / "caltech101.tar") as archive:
        for member in archive:
            part, _, rest = member.name.removeprefix("caltech101/").partition("/")
            place = member.name.rpartition("/")[0]
            if member.isfile() and "/" in rest and taken[place] < {"train": TRAIN, "test": TEST}.get(part, 0):
                taken[place] += 1
                archive.extract(member, folder, filter="data")
    return folder / "caltech101"


@torch.no_grad()
def test_the_image_tower_is_the_dinov2_that_it_was_made_of(weights: Path, photos: Path) -> None:
    """OpenCLIP's own class with these weights gives what timm's own class gives."""
    dinov2 = load_teacher(f"timm:vit_small_patch14_dinov2@{weights}", image_size=SIDE)
    (batch,) = evaluation_batches(find_images([photos / "test" / "ant"]), dinov2.preprocessing, batch_size=9, workers=0)
    clip = build(Settings(weights, photos, photos / "clip.safetensors", image_size=SIDE)).eval()
    assert type(clip) is open_clip.CLIP
    said = clip.encode_image(dinov2.normalise(images_on("cpu", batch.images)))
    assert_close(said, dinov2(images_on("cpu", batch.images)).embedding, rtol=0, atol=2e-4 * float(said.abs().max()))
    # Locked: the text tower and the temperature learn, and nothing else.
    assert not any(weight.requires_grad for weight in clip.visual.parameters())
    assert clip.logit_scale.requires_grad
    assert clip.token_embedding.weight.requires_grad
    # And our teacher reads OpenCLIP's class as it reads timm's.
    assert_close(adapter.from_module(clip).embed(dinov2.normalise(images_on("cpu", batch.images))).embedding, said)


def test_weights_of_another_network_are_refused(tmp_path: Path, photos: Path) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"other\.pth' holds no weights of this architecture"):
        make(Settings(tmp_path / "other.pth", photos, tmp_path / "clip.safetensors"))


@pytest.mark.slow
def test_the_student_keeps_the_teachers_zero_shot_accuracy(
    weights: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "clip" / "open_clip_model.safetensors"
    small = {"images_per_class": TRAIN, "steps": 80, "text_layers": 1, "text_width": 128}
    assert make(Settings(weights, photos / "train", out, image_size=SIDE, **small)) > 0.95

    # OpenCLIP itself loads what was written.
    clip, _, _ = open_clip.create_model_and_transforms(f"local-dir:{out.parent}")
    assert clip.visual.image_mean == [0.485, 0.456, 0.406]

    run, teacher = tmp_path / "run", f"open_clip:{out.parent / 'open_clip_config.json'}@{out}"
    length = ["--crop", "0.875", "--tokens", "16", "--samples", "640", "--evaluations", "1", "--eval-data", str(photos / "test")]
    assert main(["bootstrap", "--teacher", teacher, "--data", str(photos / "train"), "--out", str(run), *length]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run), "--data", str(photos), "--zero-shot", "--templates", "simple", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["zero_shot"]
    assert (figures["images"], figures["classes"]) == (101 * TEST, 101)
    assert figures["teacher"]["top1"] > 0.75  # its classifier has 0.89 on all test images at this size
    assert figures["kept"] >= 0.6
    # What training brought: an untrained student is the teacher at the lower resolution.
    assert figures["student"]["top1"] > figures["low_resolution"]["top1"] + 0.05
