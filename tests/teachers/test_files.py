"""Weight files and hubs: what is read, what is refused, and what is said about it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

from sparseformers.errors import TeacherError, WeightsError
from sparseformers.teachers import load_teacher
from sparseformers.teachers.base import check_fit
from sparseformers.teachers.files import class_names_of, expect_hub, hub_errors, licence_of, read_weights
from tests.refusals import refused
from tests.released.reference import Payload

STATE = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.zeros(2)}


def test_safetensors_and_a_pickle_and_its_wrappings(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "weights.safetensors")
    assert_close(read_weights(tmp_path / "weights.safetensors"), STATE)
    for key in (None, "model", "state_dict", "teacher", "model_state_dict"):
        for prefix in ("", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."):
            state = {prefix + name: value for name, value in STATE.items()}
            torch.save(state if key is None else {key: state, "epoch": 3}, tmp_path / "weights.pth")
            assert_close(read_weights(tmp_path / "weights.pth"), STATE)


def test_a_pickle_that_carries_code_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "hostile.pth"
    content = {"weight": STATE["weight"], "extra": Payload(tmp_path / "ran")}
    torch.save(content, path)
    problem = f"The file '{path}' holds more than tensors, and loading it could run code."
    with refused(WeightsError, problem, "Save its state_dict with torch.save, or better as .safetensors."):
        read_weights(path)
    path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(WeightsError, match=r"cannot be read as weights|could run code"):
        read_weights(path)
    assert not (tmp_path / "ran").exists()


def test_a_file_cut_short(tmp_path: Path) -> None:
    for name, write in (("weights.safetensors", save_file), ("weights.pth", torch.save)):
        write(STATE, tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        for kept in (0, 4, 60):
            (tmp_path / name).write_bytes(whole[:kept])
            problem = f"The file '{tmp_path / name}' cannot be read as weights ("
            with refused(WeightsError, problem, "It may be cut short: fetch it again."):
                read_weights(tmp_path / name)


def test_a_file_without_a_state_dict(tmp_path: Path) -> None:
    for content in ([1, 2], {}, {"model": {"weight": 3}}, torch.zeros(2)):
        torch.save(content, tmp_path / "odd.pth")
        with pytest.raises(WeightsError, match=r"holds no state dict. Give a mapping from names to tensors"):
            read_weights(tmp_path / "odd.pth")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"There is no weight file '{tmp_path / 'none.pth'}'. Check the path after the '@'"):
        load_teacher(f"timm:vit_tiny_patch16_224@{tmp_path / 'none.pth'}")


def test_class_names(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    for metadata, names in (
        (None, None),
        ({"class_names": json.dumps(["cat", "dog"])}, ("cat", "dog")),
        ({"classes": "cat,dog"}, ("cat", "dog")),
        ({"labels": json.dumps([0, 1])}, ("0", "1")),
        ({"class_names": json.dumps({"cat": 0})}, None),
    ):
        save_file(STATE, path, metadata=metadata)
        assert class_names_of(path) == names
    assert class_names_of(tmp_path / "weights.pth") is None


def test_a_state_that_does_not_fit_lists_ten_of_each_difference() -> None:
    module = nn.ModuleList(nn.Linear(2, 2) for _ in range(13))
    check_fit(module.state_dict(), module.state_dict(), what="'file'")
    with pytest.raises(WeightsError) as error:
        check_fit(module.state_dict(), {f"other.{index:02}": torch.zeros(1) for index in range(12)}, what="'file'")
    missing, unexpected = error.value.problem.split("; ")
    assert missing.startswith("The weights of 'file' do not fit (missing: 0.bias, ")
    assert missing.endswith(" and 16 more")
    assert missing.count(",") == 9
    assert unexpected == f"unexpected: {', '.join(f'other.{index:02}' for index in range(10))} and 2 more)."


def test_hub_errors() -> None:
    with pytest.raises(TeacherError) as error, hub_errors("timm:name", by_hand="timm:name@FILE"):
        raise OSError("first line\nsecond line")
    assert error.value.problem == "The weights of 'timm:name' could not be fetched (OSError: first line)."
    assert isinstance(error.value.__cause__, OSError)
    with pytest.raises(TeacherError, match=r"\(OSError: OSError\)"), hub_errors("timm:name", by_hand="timm:name@FILE"):
        raise OSError
    with pytest.raises(WeightsError, match="as it is"), hub_errors("timm:name", by_hand="timm:name@FILE"):
        raise WeightsError("Passes", "as it is.")
    with pytest.raises(KeyboardInterrupt), hub_errors("timm:name", by_hand="timm:name@FILE"):
        raise KeyboardInterrupt


def test_a_hub_that_cannot_be_reached_is_noticed_at_once_and_not_needed_for_what_is_in_the_cache(dead_hub: Path) -> None:
    with pytest.raises(TeacherError, match="could not be fetched"), hub_errors("timm:name", by_hand="timm:name@FILE"):
        expect_hub("owner/name")
    expect_hub(None)
    (dead_hub / "models--owner--name" / "snapshots").mkdir(parents=True)
    expect_hub("owner/name")
    expect_hub("owner/name/file.bin")


def test_licences() -> None:
    licences = {"vit_base_patch16_224.augreg_in21k": "Apache-2.0", "vit_base_patch16_224.mae": "CC-BY-NC-4.0", "openai": "MIT"}
    licences |= {"metaclip_400m": "CC-BY-NC-4.0", "something_else": None}
    assert {name: licence_of(name) for name in licences} == licences
