"""Every family of timm as a teacher: a student with as many tokens as it has patches is the teacher itself."""

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from sparseformers import load, save
from sparseformers.evaluation.rebuilt import RebuiltTeacher
from sparseformers.exporting import ExportConfig, export
from sparseformers.inference import fold, fold_embedding
from sparseformers.inheritance import inherit
from sparseformers.inheritance.inheriting import FrontKind
from sparseformers.model import SparseFormerOutput
from sparseformers.model.positions import RelativePositions, RotaryPositions
from sparseformers.teachers import Teacher, load_teacher
from tests.teachers.identity import check_identity, check_same, images_for
from tests.teachers.timm_families import FAMILIES, small
from tests.tiny import write_images

SIZES = {"its own": (64, 64), "another": (48, 80)}


@pytest.fixture(scope="module", params=FAMILIES)
def network(request: pytest.FixtureRequest) -> nn.Module:
    built = small(request.param)
    if hasattr(built, "patch_embed") and not hasattr(built, "set_input_size"):
        pytest.skip(f"timm {timm.__version__} cannot give a {type(built).__name__} another image size")
    return built


@pytest.mark.parametrize("size", SIZES)
def test_identity(network: nn.Module, size: str) -> None:
    check_identity(load_teacher(network, image_size=SIZES[size]))


@torch.no_grad()
def test_a_new_student_is_timms_own_model_on_smaller_images(network: nn.Module) -> None:
    teacher, smaller = load_teacher(network, image_size=64), load_teacher(network, image_size=32)
    student, images = inherit(teacher, tokens=16).student.eval(), images_for(smaller)
    check_same(student(images).embedding, smaller(images).embedding, tolerance=1e-4)
    # The same by our own parts, which maps of attention are read from.
    rebuilt = RebuiltTeacher(teacher, grid=(4, 4))
    check_same(rebuilt(images).embedding, smaller(images).embedding, tolerance=1e-4)


@torch.no_grad()
def test_a_student_is_the_same__saved_folded_and_with_positions_that_matter(network: nn.Module, tmp_path: Path) -> None:
    teacher = load_teacher(network, image_size=64)
    student, images = inherit(teacher, tokens=16).student.eval(), images_for(teacher)
    output = student(images)
    save(student, tmp_path / "student.safetensors")
    check_same(load(tmp_path / "student.safetensors")(images).embedding, output.embedding, tolerance=1e-6)
    folded = fold(student)(images)
    check_same(folded.embedding, output.embedding, tolerance=1e-5)
    if output.logits is not None:
        check_same(folded.logits, output.logits, tolerance=1e-5)
    check_same(fold_embedding(student)(images), output.embedding, tolerance=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        for rough in (student(images).embedding, fold_embedding(student)(images)):
            check_same(rough.float(), output.embedding, tolerance=0.1)
    positions = student.cortex.positions
    if positions is not None:
        values = positions.frequencies if isinstance(positions, RotaryPositions) else positions.table
        assert isinstance(positions, RotaryPositions | RelativePositions)
        values.mul_(0)
        assert (student(images).embedding - output.embedding).abs().max() > 1e-3 * output.embedding.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("family", ["DINOv3", "ROPE-ViT, mixed, with absolute positions", "EVA-02", "BEiT", "NaFlexViT"])
def test_other_fronts_take_positions_along(family: str) -> None:
    teacher = load_teacher(small(family), image_size=64)
    grid = inherit(teacher, tokens=16).student.eval()
    mixed = inherit(teacher, front="mixed", tokens=16).student.eval()
    images = images_for(teacher)
    # A new map is flat: the mixed-resolution front splits all cells alike.
    check_same(mixed(images).embedding, grid(images).embedding, tolerance=1e-5)
    paper = inherit(teacher, front="focusing", tokens=9, truncate=1, tune=1, freeze=0).student
    assert paper(images).embedding.isfinite().all()
    positions = teacher.positions_state(3, 3)
    for name, value in paper.cortex.state_dict().items():
        if name.startswith("positions."):  # those of the block that is left, where each has its own
            assert torch.equal(value, positions[name][-len(value) :])


def test_liberties_are_told() -> None:
    notes = {
        "DINOv3": (),
        "EVA-02": ("no bias on keys", "put in another order"),
        "Sapiens2": ("shares 2 keys and values among 4 heads", "scales one branch"),
    }
    for family, expected in notes.items():
        told = load_teacher(small(family)).liberties()
        assert len(told) == len(expected), told
        for sentence, part in zip(told, expected, strict=True):
            assert part in sentence
        report = " ".join(inherit(load_teacher(small(family), image_size=64), tokens=16).report.lines())
        assert all(part in report for part in expected)


def test_the_embedding_and_tokens_of_a_teacher_with_root_mean_square_norms() -> None:
    teacher: Teacher = load_teacher(small("AIMv2"), image_size=64)
    images = images_for(teacher)
    embedding, tokens = teacher.embedding_and_tokens(images)
    assert tokens.shape == (2, 64, 8, 8)
    check_same(tokens.mean(dim=(2, 3)), embedding, tolerance=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "front"),
    [("DINOv3", "grid"), ("Perception Encoder, core", "mixed"), ("BEiT", "mixed"), ("relative positions, shared", "grid")],
)
def test_compiles_whole__and_exports(family: str, front: FrontKind) -> None:
    student = inherit(load_teacher(small(family), image_size=64), front=front, tokens=16).student.eval()
    images, shapes = torch.rand(3, 3, 64, 64), {"images": {0: torch.export.Dim("batch")}}
    expected = student(images).embedding
    torch._dynamo.reset()
    compiled = torch.compile(student, fullgraph=True, backend="eager")(images)
    check_same(compiled.embedding, expected, tolerance=1e-6)
    exported = torch.export.export(student, (torch.rand(2, 3, 64, 64),), dynamic_shapes=shapes).module()
    check_same(SparseFormerOutput(*exported(images)).embedding, expected, tolerance=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_an_onnx_file_of_each_family(family: str, tmp_path: Path) -> None:
    student = inherit(load_teacher(small(family), image_size=64), tokens=16).student
    write_images(tmp_path / "photos", 4)
    summary = export(student, tmp_path / "student.onnx", ExportConfig(format="onnx", data=(tmp_path / "photos",)))
    assert summary.agreement.greatest_error < 1e-5
