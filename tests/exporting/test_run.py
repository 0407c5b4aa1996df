"""Whole exports; what each format needs is in the tests of its own."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import sparseformers
from sparseformers.errors import ConfigError, DataError, RunError
from sparseformers.exporting import ExportCheckError, ExportConfig, export
from sparseformers.exporting.formats import SafetensorsFile
from sparseformers.inheritance import Provenance, Shares
from sparseformers.model import SparseFormer
from sparseformers.settings import to_dict
from sparseformers.train.run_folder import RunFolder
from tests.cli.command import Command
from tests.exporting.students import FRONTS, student_of
from tests.model.small import grid_config
from tests.tiny import write_images


@pytest.fixture(scope="module")
def student() -> SparseFormer:
    return student_of(grid_config())


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    write_images(folder, 5)
    (folder / "broken.jpg").write_bytes(b"no image")
    return folder


def settings_for(photographs: Path, **options: object) -> ExportConfig:
    return ExportConfig(format="safetensors", data=(photographs,), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_export__a_model_file(precision: str, student: SparseFormer, photographs: Path, tmp_path: Path) -> None:
    shares = Shares(truncate=0, tune=1, freeze=0)
    origin = Provenance(teacher="timm:some_vit", teacher_fingerprint="f00", shares=shares, image_size=(48, 48), crop=0.9)
    sparseformers.save(student, tmp_path / "model.safetensors", provenance=origin)
    out = tmp_path / "made" / "out.safetensors"
    summary = export(tmp_path / "model.safetensors", out, settings_for(photographs, precision=precision))
    assert summary.files == (out,)
    assert summary.bytes == out.stat().st_size
    assert summary.agreement.images == 7  # five that can be read, and one of them at two more sizes
    assert summary.agreement.sizes == ((48, 48), (36, 60), (60, 36))
    assert [path.name for path in out.parent.iterdir()] == ["out.safetensors"]
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
        assert file.get_tensor("cortex.norm.weight").dtype == (torch.float32 if precision == "fp32" else torch.bfloat16)
    assert metadata["teacher"] == "timm:some_vit"
    assert json.loads(metadata["image_size"]) == [48, 48]
    assert json.loads(metadata["mean"]) == list(student.config.preprocessing.mean)
    assert metadata["sparseformers"] == sparseformers.__version__
    if precision == "fp32":
        images = torch.rand(2, 3, 48, 48)
        assert torch.equal(sparseformers.load(out)(images).embedding, student(images).embedding)


def test_export__leaves_nothing_behind_when_the_file_differs(
    student: SparseFormer, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.safetensors"
    right = SafetensorsFile.open
    monkeypatch.setattr(SafetensorsFile, "open", lambda self, path: lambda images: right(self, path)(images) + 0.01)
    with pytest.raises(ExportCheckError, match="safetensors file in fp32 differs from the student"):
        export(student, out, settings_for(photographs))
    assert list(tmp_path.iterdir()) == []
    out.write_text("precious")
    with pytest.raises(ExportCheckError):
        export(student, out, settings_for(photographs), overwrite=True)
    assert out.read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 1
    assert export(student, out, settings_for(photographs, tolerance=0.5), overwrite=True).tolerance == 0.5
    assert out.stat().st_size > 1000


def test_export__needs_images_and_refuses_before_any_work(student: SparseFormer, photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not tell where any are\. Name a folder of images with --data"):
        export(student, tmp_path / "out.safetensors", ExportConfig(format="safetensors"))
    with pytest.raises(DataError, match="not an image"):
        export(student, tmp_path / "out.safetensors", ExportConfig(format="safetensors", data=(photographs / "broken.jpg",)))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match=r"'.*out\.onnx' does not end as .* Let it end in \.safetensors"):
        export(student, tmp_path / "out.onnx", settings_for(photographs))
    (tmp_path / "out.safetensors").write_text("precious")
    with pytest.raises(RunError, match="is there already"):
        export(student, tmp_path / "out.safetensors", settings_for(photographs))
    assert (tmp_path / "out.safetensors").read_text() == "precious"
    (tmp_path / "first.bin").write_text("precious")
    with pytest.raises(RunError, match=r"first\.bin' is there already"):
        export(student, tmp_path / "first.xml", ExportConfig(format="openvino", data=(photographs,)))


def test_export__of_a_run_is_checked_on_the_images_that_it_was_trained_on(
    student: SparseFormer, photographs: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    sparseformers.save(student, run / "model.safetensors")
    settings = sparseformers.BootstrapConfig.of(teacher="bundled", data=(photographs,))
    RunFolder(run).write_config(to_dict(settings), {})
    assert export(run, tmp_path / "out.safetensors", ExportConfig(format="safetensors")).agreement.images == 7


def test_export__refuses_tokens_that_the_student_cannot_have(photographs: Path, tmp_path: Path) -> None:
    settings = ExportConfig(format="torch-export", data=(photographs,), tokens=9)
    with pytest.raises(ConfigError, match=r"cannot have 9 tokens: this front has 4 tokens and no other number"):
        export(student_of(FRONTS["focusing"]), tmp_path / "out.pt2", settings)


def test_export__leaves_the_student_as_it_is(photographs: Path, tmp_path: Path) -> None:
    student = student_of(grid_config()).train().double()
    export(student, tmp_path / "out.safetensors", settings_for(photographs))
    assert student.training
    assert student.cortex.norm.weight.dtype == torch.float64


def test_command__prints_figures_and_ends_with_2_for_bad_input(
    student: SparseFormer, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sparseformers.save(student, tmp_path / "model.safetensors")
    command, out = Command(capsys), tmp_path / "out.safetensors"
    words = ["export", tmp_path / "model.safetensors", out, "--format", "safetensors", "--data", photographs]
    summary = command.json(*words)
    assert summary["agreement"]["greatest_difference"] == 0
    assert summary["agreement"]["lowest_cosine"] == pytest.approx(1)
    assert summary["metadata"]["teacher"] == "unknown"
    assert "is there already" in command.refused(*words)
    printed = command(*words, "--overwrite")
    assert "greatest difference" in printed
    assert "1.000000 at the least" in printed
