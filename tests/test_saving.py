import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sparseformers.errors import RunError, WeightsError
from sparseformers.inheritance import Provenance, Shares
from sparseformers.model import SparseFormer
from sparseformers.saving import CONFIGURATION, load, load_saved, save, saved_score
from sparseformers.settings import to_dict
from tests.model.small import grid_config, small_config, small_model
from tests.refusals import refused
from tests.train.runs import flip


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save(small_model(), path)
    return path


def rewrite(path: Path, *, tensors: dict[str, torch.Tensor] | None = None, metadata: dict[str, str] | None = None) -> None:
    with safe_open(path, "pt") as file:
        kept = file.metadata()
    save_file(tensors or load_file(path), path, metadata={**kept, **(metadata or {})})


SHARES = Shares(truncate=1, tune=1, freeze=1)
PROVENANCE = Provenance(teacher="timm:x", teacher_fingerprint="abc", shares=SHARES, image_size=(64, 64), crop=0.9)


def test_save_load__round_trip_gives_the_same_function(tmp_path: Path) -> None:
    student = small_model(block={"layer_scale": True, "query_key_norm": True}, pooling="attention", projection=8, classes=3)
    save(student, tmp_path / "folder" / "model.safetensors", provenance=PROVENANCE)
    again = load_saved(tmp_path / "folder" / "model.safetensors")
    assert load(tmp_path / "folder").config == again.student.config
    images = torch.rand(2, 3, 48, 64)
    for ours, theirs in zip(again.student(images), student(images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert again.provenance == PROVENANCE
    assert again.student.config == student.config
    assert not again.student.training


def test_save__puts_the_configuration_among_the_tensors_too_and_load_takes_a_file_from_before_that(model_path: Path) -> None:
    tensors = load_file(model_path)
    assert json.loads(bytes(tensors.pop(CONFIGURATION).tolist())) == json.loads(json.dumps(to_dict(load(model_path).config)))
    assert tensors.keys() == load(model_path).state_dict().keys()
    rewrite(model_path, tensors=tensors)
    assert load(model_path).config == small_model().config


def test_save__the_same_student_gives_the_same_bytes(tmp_path: Path) -> None:
    student = small_model()
    for number in range(4):  # the library puts metadata in another order each time
        save(student, tmp_path / f"{number}.safetensors", provenance=PROVENANCE, score=0.5)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    assert load_saved(tmp_path / "0.safetensors").provenance == PROVENANCE


def test_saved_score__is_the_one_that_was_given(tmp_path: Path) -> None:
    save(small_model(), tmp_path / "scored.safetensors", score=0.1 + 0.2)
    save(small_model(), tmp_path / "plain.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    scores = [saved_score(tmp_path / f"{name}.safetensors") for name in ("scored", "plain", "torn", "absent")]
    assert scores == [0.1 + 0.2, None, None, None]


def rewrite_config(path: Path, config: dict[str, Any]) -> None:
    """Writes another configuration into both its places in a file."""
    text = json.dumps(config)
    tensors = load_file(path) | {CONFIGURATION: torch.tensor(list(text.encode()), dtype=torch.uint8)}
    rewrite(path, tensors=tensors, metadata={"config": text})


def test_load__unknown_keys_are_refused_but_for_that_of_positions_before_blocks_if_there_were_none(model_path: Path) -> None:
    config = to_dict(small_config())
    config["cortex"]["position_grid"] = None
    rewrite_config(model_path, config)
    assert load(model_path).config == small_config()
    config["cortex"]["position_grid"] = [2, 2]
    config["focusing"]["tokns"] = config["focusing"].pop("tokens")
    rewrite_config(model_path, config)
    for unknown in ("unknown key 'focusing.tokns'. Did you mean 'tokens'", "unknown key 'cortex.position_grid'"):
        with refused(WeightsError, unknown):
            load(model_path)


def test_load__takes_the_fronts_of_version_0_1_by_their_old_names(tmp_path: Path) -> None:
    images = torch.rand(1, 3, 48, 64)
    for old, config in (("inherited", grid_config()), ("bootstrapped", small_config())):
        path = tmp_path / f"{old}.safetensors"
        student = SparseFormer(config).eval()
        save(student, path)
        values = to_dict(config)
        values["focusing"]["kind"] = old
        if old == "inherited":
            values["focusing"] |= {"looks": 0, "bound": 0.4}
        rewrite_config(path, values)
        loaded = load(path)
        assert loaded.config == config
        assert torch.equal(loaded(images).embedding, student(images).embedding)
    values["focusing"] = to_dict(grid_config().focusing) | {"kind": "inherited", "looks": 3, "bound": 0.4}
    rewrite_config(path, values)
    with pytest.raises(WeightsError, match=r"front whose RoIs move \(3 looks\).* Use version 0\.1 for it, or bootstrap anew"):
        load(path)


def test_save__leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    save(small_model(), path)
    before = path.read_bytes()
    monkeypatch.setattr("sparseformers.saving.save_file", Mock(side_effect=OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save(small_model(tokens=3), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_load__names_the_damage(model_path: Path) -> None:
    whole, tensors = model_path.read_bytes(), load_file(model_path)
    tensors["stray"] = tensors.pop("cortex.norm.weight")
    damages: tuple[tuple[Callable[[], object], str], ...] = (
        (lambda: model_path.write_bytes(whole[:-100]), r"cannot be read as safetensors.* cut short"),
        (lambda: flip(model_path, -3), "not those that were saved"),  # one value
        (lambda: rewrite(model_path, tensors=tensors), r"missing: cortex\.norm\.weight; unexpected: stray"),
        (lambda: rewrite(model_path, tensors={"stray": torch.zeros(2)}), r"missing: ([\w.]+, ){9}[\w.]+ and \d+ more"),
        (lambda: save_file({"head.weight": torch.zeros(2)}, model_path), "carries no configuration"),  # a teacher's
    )
    for damage, told in damages:
        model_path.write_bytes(whole)
        damage()
        with pytest.raises(WeightsError, match=told):
            load(model_path)


def test_load__missing_places(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run folder or model file"):
        load(tmp_path / "nowhere")
    with pytest.raises(RunError, match="is not a run of sparseformers"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RunError, match=r"has no model\.safetensors yet"):
        load(tmp_path)
