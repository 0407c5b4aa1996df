from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import sparseformers
from sparseformers.config import FocusingConfig, OriginalFocusingConfig
from sparseformers.errors import ConfigError, RunError, WeightsError
from sparseformers.released import load_official
from tests.model.small import small_model
from tests.released.reference import small_weights
from tests.tiny import write_teacher


@pytest.mark.parametrize(("name", "kind"), [("v1", OriginalFocusingConfig), ("bootstrapped_clip", FocusingConfig)])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_opens_files_of_the_authors(fixtures: Path, tmp_path: Path, name: str, kind: type, suffix: str) -> None:
    weights, path = small_weights(fixtures, name), tmp_path / f"released{suffix}"
    if suffix == ".pth":
        torch.save({"model": weights}, path)
    else:
        save_file(weights, path)
    opened = sparseformers.open_model(path)
    expected = load_official(weights, activation="quick_gelu" if name == "bootstrapped_clip" else "gelu")
    assert isinstance(opened, sparseformers.SparseFormer)
    assert isinstance(opened.config.focusing, kind)
    assert opened.config == expected.config
    assert opened.provenance is None
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(opened(images).embedding, expected(images).embedding)


def test_opens_our_own_files_and_runs(tmp_path: Path) -> None:
    student = small_model().eval()
    sparseformers.save(student, tmp_path / "model.safetensors")
    images = torch.rand(1, 3, 64, 64)
    for place in (tmp_path, tmp_path / "model.safetensors", str(tmp_path)):
        with torch.no_grad():
            assert torch.equal(sparseformers.open_model(place)(images).embedding, student(images).embedding)


def test_what_is_no_student(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="is no SparseFormer and has no regions of interest"):
        sparseformers.open_model(tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="'bundled' is a teacher, and has no regions of interest"):
        sparseformers.open_model("bundled")
    with pytest.raises(RunError, match=r"no run folder, model file or released model 'sf_base'\. Did you mean .*'sf_base_clip'"):
        sparseformers.open_model("sf_base")


def test_inherits_from_a_name_a_network_or_a_teacher(tmp_path: Path) -> None:
    name = write_teacher(tmp_path / "teacher.safetensors")
    teacher = sparseformers.load_teacher(name)
    students = [sparseformers.inherit(given, tokens=9).student.eval() for given in (name, teacher.network, teacher)]
    images = torch.rand(1, 3, 64, 64)
    for student in students[1:]:
        assert isinstance(student, sparseformers.SparseFormer)
        assert torch.equal(student(images).embedding, students[0](images).embedding)


def test_hosts_take_a_student_by_its_path(tmp_path: Path) -> None:
    sparseformers.save(small_model(), tmp_path / "model.safetensors")
    assert sparseformers.as_vision_tower(str(tmp_path)).config.image_seq_length == 6
    assert sparseformers.as_open_clip_visual(tmp_path).student.config == small_model().config
    for host in (sparseformers.as_vision_tower, sparseformers.as_open_clip_visual):
        with pytest.raises(ConfigError, match=r"A student is a SparseFormer, or the name of one, not Linear\."):
            host(torch.nn.Linear(2, 2))  # type: ignore[operator]
