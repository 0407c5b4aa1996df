"""``evaluate --zero-shot`` and ``evaluate --captions`` as a user types them, from a CLIP by OpenCLIP's own classes."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import sparseformers
from sparseformers.data import LabelledImages, evaluation_batches, images_on, labelled_splits
from sparseformers.inheritance import inherit
from sparseformers.teachers import load_teacher
from tests.cli.command import FAST, Command, save_student
from tests.tiny import write_images
from tests.tiny_clip import build_clip, clip_config, write_clip

CLASSES = ("ant", "sea_horse", "yin_yang")
SIMPLE = ("--templates", "simple", "--precision", "fp32")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def model(teacher: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An untrained student with an inherited front: the teacher at a lower resolution."""
    student, _, provenance = inherit(load_teacher(teacher), tokens=4)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    sparseformers.save(student, path, provenance=provenance)
    return str(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Class folders with 2, 4 and 6 test images, and a captions file of these."""
    rows = []
    for number, name in enumerate(CLASSES):
        write_images(tmp_path / "photos" / "train" / name, 1, seed=number)
        paths = write_images(tmp_path / "photos" / "test" / name, 2 + 2 * number, seed=10 + number)
        rows += [(path.relative_to(tmp_path / "photos"), name, place) for place, path in enumerate(paths)]
    lines = [{"image": str(path), "captions": [f"a {name} {place}", f"number {place} {name}"]} for path, name, place in rows]
    (tmp_path / "photos" / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path / "photos"


@torch.no_grad()
def expected_accuracy(teacher: str, images: LabelledImages, names: list[str]) -> tuple[float, Tensor]:
    """OpenCLIP's own zero-shot top-1 on the test images, and the embeddings behind it."""
    clip, preprocessing = build_clip(clip_config()), load_teacher(teacher).preprocessing
    tokenizer = open_clip.SimpleTokenizer(context_length=clip.context_length)
    classes = open_clip.build_zero_shot_classifier(clip, tokenizer, names, open_clip.SIMPLE_IMAGENET_TEMPLATES)
    (batch,) = evaluation_batches(list(images.paths), preprocessing, batch_size=99, workers=0)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (preprocessing.mean, preprocessing.std))
    embedded = clip.encode_image((images_on("cpu", batch.images) - mean) / std, normalize=True)
    return ((embedded @ classes).argmax(dim=1) == torch.tensor(images.labels)).double().mean().item(), embedded


def test_zero_shot__the_teacher_scores_what_open_clip_says(teacher: str, model: str, photos: Path, command: Command) -> None:
    figures = command.json("evaluate", model, "--data", photos, "--zero-shot", *SIMPLE)
    splits = labelled_splits(photos)
    top1, _ = expected_accuracy(teacher, splits["test"], ["ant", "sea horse", "yin yang"])
    zero_shot = figures["zero_shot"]
    assert zero_shot["teacher"]["top1"] == pytest.approx(top1)
    assert zero_shot["teacher"]["top5"] == 1.0  # of three classes
    # It was not trained, so it is the low-resolution teacher with as many tokens.
    assert zero_shot["student"] == zero_shot["low_resolution"]
    assert (zero_shot["images"], zero_shot["classes"], zero_shot["templates"]) == (12, 3, 7)
    assert figures["low_resolution"] == {"size": [32, 32], "tokens": 4}
    assert figures["retrieval"] is None
    assert figures["skipped_images"] == []


def test_zero_shot__a_table(model: str, photos: Path, tmp_path: Path, command: Command) -> None:
    (photos / "test" / "ant" / "broken.png").write_bytes(b"nothing")
    (tmp_path / "names.txt").write_text("emmet\nhippocampus\ntaijitu")
    (tmp_path / "templates.txt").write_text("a drawing of a {}.")
    words = ["evaluate", model, "--data", photos, "--precision", "fp32", "--zero-shot"]
    printed = command(*words, "--classnames", tmp_path / "names.txt", "--templates", tmp_path / "templates.txt", "--limit", 7)
    for part in ("teacher at 32 px, 4 tokens", "top-5", "33.3%", "3 classes, 1 sentence for each"):
        assert part in printed, part
    assert "…" not in printed
    printed = command(*words, "--templates", "simple")
    assert "12 images, 1 unreadable skipped" in printed
    assert "skipped: " in printed


def test_class_names__change_what_is_found(model: str, photos: Path, tmp_path: Path, command: Command) -> None:
    words = ["evaluate", model, "--data", photos, "--zero-shot", *SIMPLE]
    (tmp_path / "names.json").write_text(json.dumps(dict(zip(CLASSES, ("yin yang", "ant", "sea horse"), strict=True))))
    own, turned = (command.json(*words, *names)["zero_shot"] for names in ([], ["--classnames", tmp_path / "names.json"]))
    assert turned["teacher"]["top1"] != own["teacher"]["top1"]
    assert turned["agreement"] == own["agreement"]  # the classes are the same ones under each other's labels


@pytest.mark.parametrize("limit", [0, 5])
def test_captions__recall_in_both_directions(teacher: str, model: str, photos: Path, limit: int, command: Command) -> None:
    captions = ["--captions", photos / "captions.jsonl", "--limit", limit, "--precision", "fp32"]
    figures = command.json("evaluate", model, "--data", photos, *captions)
    assert figures["zero_shot"] is None
    retrieval = figures["retrieval"]
    images = limit or 12
    assert (retrieval["images"], retrieval["captions"]) == (images, 2 * images)
    assert retrieval["teacher"]["image_to_text"]["at_10"] == 1.0 or not limit
    assert retrieval["student"] == retrieval["low_resolution"]
    if not limit:
        rows = [json.loads(line) for line in (photos / "captions.jsonl").read_text().splitlines()]
        splits = labelled_splits(photos)
        _, embedded = expected_accuracy(teacher, splits["test"], list(CLASSES))
        clip = build_clip(clip_config())
        texts = open_clip.SimpleTokenizer(context_length=clip.context_length)([text for row in rows for text in row["captions"]])
        with torch.no_grad():
            similarity = embedded @ F.normalize(clip.encode_text(texts), dim=-1).T  # 12 x 24
        of_image = torch.arange(12).repeat_interleave(2)
        image_found, text_found = similarity.argmax(dim=0) == of_image, of_image[similarity.argmax(dim=1)] == torch.arange(12)
        assert retrieval["teacher"]["text_to_image"]["at_1"] == pytest.approx(image_found.double().mean().item())
        assert retrieval["teacher"]["image_to_text"]["at_1"] == pytest.approx(text_found.double().mean().item())


def test_captions__a_table_beside_that_of_zero_shot(model: str, photos: Path, command: Command) -> None:
    (photos / "test" / "ant" / "photograph_000.jpg").write_bytes(b"nothing")
    options = ["--captions", photos / "captions.jsonl", "--zero-shot", *SIMPLE, "--tokens", 4]
    printed = command("evaluate", model, "--data", photos, *options)
    for part in ("Zero-shot: ", "Retrieval: ", "22 captions"):
        assert part in printed
    assert printed.count("skipped: ") == 1


def test_bootstrap__from_a_configuration_file(teacher: str, photos: Path, tmp_path: Path, command: Command) -> None:
    run = tmp_path / "run"
    command("bootstrap", "--teacher", teacher, "--data", photos, "--out", run, *FAST, "--front", "grid", "--tokens", 5)
    figures = command.json("evaluate", run, "--data", photos, "--zero-shot", *SIMPLE)
    assert figures["low_resolution"]["tokens"] == 4
    assert 0 <= figures["zero_shot"]["student"]["top1"] <= 1


def test_bad_input(model: str, photos: Path, tmp_path: Path, command: Command) -> None:
    names, captions = tmp_path / "names.txt", tmp_path / "captions.csv"

    def refused(*options: object, data: Path = photos) -> str:
        return command.refused("evaluate", model, "--data", data, *options)

    assert "--classnames is for zero-shot classification only. Add --zero-shot" in refused("--classnames", names)
    assert "--templates is for zero-shot classification only." in refused("--templates", "simple")
    assert "without --shifts and --views. Measure them in another run." in refused("--zero-shot", "--shifts")
    assert "without --shifts and --views." in refused("--captions", captions, "--views", 2)
    assert "has no class folders to judge zero-shot classification by." in refused("--zero-shot", data=photos / "test" / "ant")
    names.write_text("ant\nbee")
    said = refused("--zero-shot", "--classnames", names)
    assert "has 2 class names, but there are 3 class folders. Give one name for each folder in their sorted order" in said
    assert "There is no file of templates 'opena'. Did you mean 'openai'?" in refused("--zero-shot", "--templates", "opena")
    captions.write_text("image,caption\ntest/ant/missing.jpg,an ant\n")
    said = refused("--captions", captions)
    assert "names an image that is not there: " in said
    assert "(--data); mend them, or leave out these lines." in said
    for path in photos.rglob("*.jpg"):
        path.write_bytes(b"nothing")
    assert "There was no image that could be read." in refused("--zero-shot")


def test_teachers_without_a_text_tower(model: str, teacher: str, photos: Path, tmp_path: Path, command: Command) -> None:
    said = command.refused("evaluate", save_student(tmp_path), "--data", photos, "--zero-shot")
    assert f"The teacher 'timm:test_vit@{tmp_path}/teacher.safetensors' has no text tower that could be asked for words." in said
    assert "need a student of an OpenCLIP teacher (open_clip:ARCH/TAG)." in said
    # The same image tower, in a file that holds nothing else.
    config = teacher.removeprefix("open_clip:").partition("@")[0]
    tower = {name: value.contiguous() for name, value in build_clip(clip_config()).visual.state_dict().items()}
    torch.save(tower, tmp_path / "tower.pth")
    alone = f"open_clip:{config}@{tmp_path / 'tower.pth'}"
    said = command.refused("evaluate", model, "--data", photos, "--zero-shot", "--teacher", alone)
    assert "holds an image tower without a text tower. Give the file of the whole CLIP" in said
