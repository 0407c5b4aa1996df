"""Why vision towers of Hugging Face are refused: their type, a damaged folder, a hub out of reach."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from torch import nn

from sparseformers.errors import TeacherError, WeightsError
from sparseformers.teachers import huggingface as adapter
from sparseformers.teachers import load_teacher
from tests.refusals import refused
from tests.teachers.huggingface_models import save, siglip_vision, vit


def test_refused_types(tmp_path: Path) -> None:
    for model_type, reason in (
        ("swin", "it is windowed"),
        ("deit", "it has a distillation token"),
        ("resnet", "its type 'resnet' is none of vit, vit_mae, ijepa, dinov2"),
        ("made_up", "its type 'made_up' is none of vit"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
        problem = f"'hf:{tmp_path}' cannot be inherited from yet: {reason}"
        with refused(TeacherError, problem, "timm:vit_base_patch16_224.augreg_in21k_ft_in1k"):
            load_teacher(f"hf:{tmp_path}")


def test_refused_modules() -> None:
    with pytest.raises(TeacherError, match="its type 'Linear' is none of vit"):
        adapter.from_module(nn.Linear(2, 2))
    with pytest.raises(TeacherError, match="its SigLIP tower has no pooling head"):
        adapter.from_module(siglip_vision(vision_use_head=False))
    with pytest.raises(TeacherError, match="its activation is tanh"):
        adapter.from_module(vit(hidden_act="tanh"))


def test_a_missing_weight_is_an_error(tmp_path: Path) -> None:
    name = save(vit(), tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    kept = {key: value for key, value in state.items() if "layernorm_before" not in key}
    assert len(kept) < len(state)
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        WeightsError, match=r"do not fit \(missing: .*layernorm_before.* Check that they belong to its config\.json\."
    ):
        load_teacher(name)


def test_a_damaged_folder_and_a_missing_one(tmp_path: Path) -> None:
    name = save(vit(), tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with refused(WeightsError, f"The folder '{tmp_path}' cannot be read as a model", "fetch it again if it was cut short"):
        load_teacher(name)
    (tmp_path / "config.json").unlink()
    with pytest.raises(TeacherError, match="holds no model of transformers"):
        load_teacher(name)
    with refused(WeightsError, f"There is no folder '{tmp_path / 'nothing'}'.", "Give an existing folder"):
        load_teacher(f"hf:{tmp_path / 'nothing'}")
