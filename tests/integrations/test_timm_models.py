"""SparseFormers in timm's registry, made and loaded as timm's users and scripts do it."""

from pathlib import Path
from typing import Any, cast

import pytest
import timm
import timm.data
import timm.models
import torch
from safetensors.torch import save_file

import sparseformers
from sparseformers.errors import ConfigError, RunError, TeacherError, WeightsError
from sparseformers.inheritance import inherit
from sparseformers.integrations.timm_network import TimmSparseFormer
from sparseformers.model import SparseFormer
from sparseformers.named import NAMED_CONFIGS, named_config
from sparseformers.released import RELEASES, activation_of, config_from_state, load_official
from sparseformers.teachers import hubs, load_teacher
from tests.integrations.kinds import KINDS, every_kind, student_of
from tests.integrations.timm_small import images, released
from tests.refusals import refused
from tests.released.reference import small_weights
from tests.tiny import SIDE, write_teacher

SMALL = {"sf_v1_tiny": "v1", "sf_base_clip": "clip", "sf_base_augreg": "augreg"}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if some named sizes were as small as the test models."""
    for name, kind in SMALL.items():
        monkeypatch.setitem(NAMED_CONFIGS, name, KINDS[kind]())  # type: ignore[arg-type]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with a student of a real, tiny teacher."""
    teacher = load_teacher(write_teacher(tmp_path / "teacher.safetensors"), image_size=SIDE)
    student, _, provenance = inherit(teacher, front="grid", tokens=4)
    sparseformers.save(student, tmp_path / "run" / "model.safetensors", provenance=provenance)
    return tmp_path / "run"


def create(name: str, **options: Any) -> TimmSparseFormer:
    return cast(TimmSparseFormer, timm.create_model(name, **options).eval())


def test_the_registry_knows_them() -> None:
    assert set(timm.list_models("sf_*")) == {*NAMED_CONFIGS, "sf_run"}
    assert set(timm.list_pretrained("sf_*")) == set(NAMED_CONFIGS)
    assert all(timm.is_model(name) for name in [*NAMED_CONFIGS, "sf_run"])
    assert timm.list_models(module="timm_models") == timm.list_models("sf_*")
    assert timm.models.is_model_pretrained("sf_v1_tiny")
    assert not timm.models.is_model_pretrained("sf_run")


@pytest.mark.parametrize("name", ["sf_base_augreg", "sf_large_clip", "sf_v1_small"])
def test_default_settings(name: str) -> None:
    settings, config = timm.get_pretrained_cfg(name), named_config(name)
    with torch.device("meta"):
        state = SparseFormer(config).state_dict()
    assert (settings.mean, settings.std) == (config.preprocessing.mean, config.preprocessing.std)
    assert (settings.interpolation, settings.input_size, settings.fixed_input_size) == ("bicubic", (3, 224, 224), False)
    assert settings.crop_pct == {"augreg": 0.9, "clip": 1.0}.get(name.rpartition("_")[2], 0.875)
    assert settings.num_classes == {"sf_large_clip": 768}.get(name, 1000)
    assert f"{settings.classifier}.weight" in state
    assert len(state[f"{settings.classifier}.weight"]) == settings.num_classes
    assert f"{settings.first_conv}.weight" in state
    assert settings.url.endswith(RELEASES[name])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", SMALL)
def test_made_by_name(name: str) -> None:
    model = create(name)
    assert model.default_cfg is model.pretrained_cfg
    assert model.default_cfg["architecture"] == name
    # timm makes the default number of classes
    assert model(images(1)).shape == (1, model.default_cfg["num_classes"])
    assert create(name, num_classes=42)(images()).shape == (2, 42)
    assert create(name, num_classes=0)(images()).shape == (2, model.head_hidden_size)
    assert timm.create_model(name, num_classes=3).training
    features = timm.create_model(name, features_only=True).eval()
    assert [output.shape[-1] for output in features(images())] == features.feature_info.channels() == [32] * 3
    some = timm.create_model(name, features_only=True, out_indices=(0, -1))
    assert len(some(images())) == 2
    assert not [key for key in some.state_dict() if "classifier" in key]


@pytest.mark.usefixtures("small")
def test_options() -> None:
    model = timm.create_model("sf_base_augreg", drop_rate=0.1, drop_path_rate=0.2, global_pool="avg", img_size=96)
    assert (model.drop_rate, model.drop_path_rate, model.global_pool) == (0.1, 0.2, "avg")
    assert create("sf_base_augreg", num_classes=0, global_pool="")(images()).ndim == 3
    assert next(create("sf_base_augreg", dtype=torch.bfloat16).parameters()).dtype == torch.bfloat16
    for options, problem in (
        ({"in_chans": 1}, "images of 3 channels (red, green, blue), not 1"),
        ({"img_size": 16}, "at least 32 pixels a side, not 16"),
        ({"drop_path_rate": 1.0}, "chances in [0, 1), not 0.0 and 1.0"),
        ({"global_pool": "max"}, "cannot be pooled by 'max'"),
    ):
        with refused(ConfigError, problem):
            timm.create_model("sf_base_augreg", **options)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="drop_pat_rate"):
        timm.create_model("sf_base_augreg", drop_pat_rate=0.1)


@pytest.mark.parametrize(("name", "reference"), [("sf_v1_tiny", "v1"), ("sf_base_clip", "bootstrapped_clip")])
def test_pretrained_has_the_authors_weights(
    name: str, reference: str, fixtures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = small_weights(fixtures, reference)
    monkeypatch.setitem(NAMED_CONFIGS, name, config_from_state(weights, activation_of(weights)))  # type: ignore[arg-type]
    torch.save(weights, tmp_path / RELEASES[name])
    official = load_official(weights, activation=activation_of(weights))
    shown = torch.rand(2, 3, 40, 56)
    expected = official(shown)
    own = {"sf_v1_tiny": 10, "sf_base_clip": 24}[name]
    for where in ({"cache_dir": tmp_path}, {}):
        if not where:
            monkeypatch.setenv("SPARSEFORMERS_CACHE", str(tmp_path))
        model = create(name, pretrained=True, num_classes=own, **where)
        assert torch.equal(model(official.normalise(shown)), expected.embedding if expected.logits is None else expected.logits)
    fresh = create(name, pretrained=True, num_classes=3)
    assert fresh(shown).shape == (2, 3)
    assert torch.equal(fresh.forward_features(shown), model.forward_features(shown))
    features = timm.create_model(name, pretrained=True, features_only=True, out_indices=1).eval()
    last = model.forward_intermediates(shown, indices=1, intermediates_only=True)
    assert torch.equal(features(shown)[0], last[0])


def test_pretrained_without_a_network_says_how_to_fetch_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.urlopen", refuse)
    with refused(WeightsError, "could not be fetched", f"put it at '{tmp_path / RELEASES['sf_v1_tiny']}'"):
        timm.create_model("sf_v1_tiny", pretrained=True, cache_dir=tmp_path)


@pytest.mark.usefixtures("small")
@every_kind
def test_a_run_of_any_shape_is_loaded_from_its_checkpoint(kind: str, tmp_path: Path) -> None:
    student = student_of(kind)
    sparseformers.save(student, tmp_path / "model.safetensors")
    model = create("sf_run", checkpoint_path=tmp_path / "model.safetensors")
    shown = torch.rand(2, 3, 40, 56)
    output = student(shown)
    expected = output.embedding if output.logits is None else output.logits
    assert torch.equal(model(student.normalise(shown)), expected)
    assert model.pretrained_cfg["mean"] == student.config.preprocessing.mean
    for name in (name for name, other in SMALL.items() if other == kind and name != "sf_base_augreg"):  # of a named size
        named = create(name, num_classes=expected.shape[1], checkpoint_path=tmp_path / "model.safetensors")
        assert torch.equal(named(student.normalise(shown)), expected)


def test_a_run_of_any_shape(run: Path) -> None:
    student = sparseformers.load(run)
    shown = torch.rand(2, 3, SIDE, SIDE)
    for where in (run, str(run / "model.safetensors")):
        model = create("sf_run", run=where)
        assert torch.equal(model(student.normalise(shown)), student(shown).logits)
    preprocessing = student.config.preprocessing
    sizes = {"input_size": (3, SIDE, SIDE), "crop_pct": preprocessing.crop, "crop_mode": "center"}
    values = {name: getattr(preprocessing, name) for name in ("interpolation", "mean", "std")}
    assert timm.data.resolve_data_config(model=model) == sizes | values
    again = create("sf_run", run=run, checkpoint_path=str(run / "model.safetensors"))
    assert torch.equal(again(shown), model(shown))
    tuned = create("sf_run", run=str(run), num_classes=7)
    assert tuned(shown).shape == (2, 7)
    assert torch.equal(tuned.forward_features(shown), model.forward_features(shown))
    assert len(timm.create_model("sf_run", run=run, features_only=True, out_indices=2)(shown)) == 2
    # Saved for a hub by timm, and loaded again.
    timm.models.save_for_hf(tuned, str(run / "hub"), safe_serialization=True)
    assert torch.equal(create(f"local-dir:{run / 'hub'}", pretrained=True)(shown), tuned(shown))


@every_kind
def test_a_checkpoint_of_timm_brings_its_shape(kind: str, tmp_path: Path) -> None:
    """Tuned in timm and saved as timm's trainer does it, then judged by name and checkpoint alone."""
    sparseformers.save(student_of(kind), tmp_path / "run" / "model.safetensors")
    model = create("sf_run", run=tmp_path / "run", num_classes=7)
    path = tmp_path / ("checkpoint.pth" if kind in ("augreg", "v1", "cells") else "checkpoint.safetensors")
    if path.suffix == ".pth":
        torch.save({"state_dict": model.state_dict(), "arch": "sf_run", "epoch": 3}, path)
    else:
        save_file(model.state_dict(), path)
    again = create("sf_run", checkpoint_path=path)
    assert again.num_classes == 7
    assert torch.equal(again(images()), model(images()))
    assert (again.pretrained_cfg["mean"], again.pretrained_cfg["crop_mode"]) == ((0.1, 0.2, 0.3), "squash")


@pytest.mark.usefixtures("small")
def test_a_released_model_tuned_in_timm_is_judged_as_what_it_is(tmp_path: Path) -> None:
    """Released weights need another position encoding than a new model of that name has; the checkpoint says so."""
    source = released("augreg")
    assert create("sf_base_augreg", num_classes=5).config.focusing != source.config.focusing
    torch.save(source.state_dict(), tmp_path / "tuned.pth")
    model = create("sf_base_augreg", num_classes=5, checkpoint_path=tmp_path / "tuned.pth")
    assert torch.equal(model(images()), source(images()))


def test_weights_through_timm_s_own_settings(run: Path) -> None:
    """A state dict as ``pretrained_cfg`` names it, with another number of classes: timm drops the head."""
    model = create("sf_run", run=run)
    save_file(model.state_dict(), run / "timm.safetensors")
    overlay = {"file": str(run / "timm.safetensors"), "num_classes": 3}
    tuned = create("sf_run", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=9)
    shown = torch.rand(2, 3, SIDE, SIDE)
    assert tuned(shown).shape == (2, 9)
    assert torch.equal(tuned.forward_features(shown), model.forward_features(shown))


def test_sf_run_alone() -> None:
    assert create("sf_run", num_classes=3)(images(1, (64, 64))).shape == (1, 3)
    with refused(ConfigError, "'sf_run' has no weights of its own.", "run='runs/first'"):
        timm.create_model("sf_run", pretrained=True)
    with pytest.raises(RunError, match="There is no run folder or model file 'nowhere'"):
        timm.create_model("sf_run", run="nowhere")


def test_timm_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "version", lambda _name: "1.0.9")
    with pytest.raises(TeacherError, match=r"timm 1\.0\.9 is too old; versions 1\.0\.21 to"):
        timm.create_model("sf_run")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED_CONFIGS)
def test_the_named_sizes_themselves(name: str) -> None:
    model = timm.create_model(name, num_classes=42)
    shown = torch.randn(2, 3, 96, 96)
    output = model(shown)
    output.mean().backward()
    assert output.shape == (2, 42)
    assert all(value.grad is not None and value.grad.isfinite().all() for value in model.parameters())
    model.eval()
    with torch.no_grad():
        features, outputs = model.forward_intermediates(shown)
        assert len(outputs) == model.config.cortex.depth
        torch.testing.assert_close(model.forward_head(features), model(shown))
        model.set_grad_checkpointing()
        torch.testing.assert_close(model.forward_features(shown), features)
