"""Weight files: what is read, which of several networks is taken, what is refused, and what is said about it."""

import argparse
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.testing import assert_close

from sparseformers.errors import WeightsError
from sparseformers.teachers import absolute_name, load_teacher
from sparseformers.teachers.checkpoints import class_names_of, find_weights, read_weights
from tests.refusals import refused
from tests.released.reference import Payload
from tests.tiny import ARCHITECTURE

STATE = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.zeros(2)}
RAW = {"embed.weight": torch.zeros(2, 3), "block.weight": torch.zeros(3)}
EMA = {name: value + 1 for name, value in RAW.items()}
OTHER = torch.ones(4)


def under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in state.items()}


CHECKPOINTS: dict[str, tuple[Any, str]] = {
    "plain": (EMA, ""),
    "timm, raw and averaged": ({"state_dict": RAW, "state_dict_ema": EMA, "args": argparse.Namespace(lr=1)}, "state_dict_ema"),
    "DeiT": ({"model": RAW, "model_ema": EMA, "epoch": 1}, "model_ema"),
    "averaged alone": ({"model_ema": EMA}, "model_ema"),
    "AveragedModel": ({**under("module.", EMA), "n_averaged": torch.tensor(3)}, "module"),
    "Lightning with a criterion": ({"state_dict": {**under("model.", EMA), "criterion.weight": OTHER}}, "state_dict.model"),
    "Lightning with an average": ({"state_dict": {**under("net.", RAW), **under("net_ema.", EMA)}}, "state_dict.net_ema"),
    "DINO": (
        {"student": under("module.backbone.", RAW), "teacher": {**under("backbone.", EMA), "head.mlp.weight": OTHER}},
        "teacher.backbone",
    ),
    "compiled": (under("_orig_mod.", EMA), "_orig_mod"),
    "compiled and distributed": (under("module._orig_mod.", EMA), "module._orig_mod"),
    "extra state": ({**EMA, "block._extra_state": None}, ""),
    "deep": ({"a": {"b": {"c": under("encoder.", EMA)}}}, "a.b.c.encoder"),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_network_in_a_checkpoint_is_found__averaged_before_raw(tmp_path: Path, name: str) -> None:
    content, place = CHECKPOINTS[name]
    torch.save(content, tmp_path / "a.pth.tar")
    weights = read_weights(tmp_path / "a.pth.tar", ("nothing", "embed.weight"))
    assert weights.place == place
    assert weights.identity("vit", Path("a"), None).source == (f"{place} of a" if place else "a")
    assert_close(weights.state, EMA)
    if isinstance(content, dict) and all(isinstance(value, Tensor) for value in content.values()):
        save_file(content, tmp_path / "A.SAFETENSORS")
        assert_close(read_weights(tmp_path / "A.SAFETENSORS", ["embed.weight"]).state, EMA)


def test_one_of_several_networks__by_its_place(tmp_path: Path) -> None:
    content = {"state_dict": RAW, "state_dict_ema": EMA}
    assert_close(find_weights(content, "it", ["embed.weight"], place="state_dict").state, RAW)
    both = {**under("a.", RAW), **under("b.", EMA)}
    with refused(WeightsError, "It holds several networks: 'a', 'b'.", "Name one of them: --teacher-weights a."):
        find_weights(both, "it", ["embed.weight"])
    assert find_weights(both, "it", ["embed.weight"], place="b").place == "b"
    with refused(
        WeightsError, "It holds no weights of this architecture under 'c': nothing ends in 'embed.weight'. It has: a, b."
    ):
        find_weights(both, "it", ["embed.weight"], place="c")


def test_no_such_network__names_what_there_is() -> None:
    content = {"state_dict": {"model.backbone.x": OTHER, "criterion.weight": OTHER}, "ema": {"y": OTHER}, "epoch": 1}
    problem = (
        "holds no weights of this architecture: nothing ends in 'embed.weight'. It has: ema.y, state_dict.criterion, state_dict"
    )
    with refused(WeightsError, problem, "Check the file"):
        find_weights(content, "the file 'a'", ["embed.weight"])


def test_a_teacher_from_a_checkpoint_of_training_code(tmp_path: Path) -> None:
    states = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        states.append(timm.create_model(ARCHITECTURE, num_classes=10, depth=1).state_dict())
    path = tmp_path / "a@b#c.pth"
    torch.save({"state_dict": states[0], "state_dict_ema": states[1], "args": argparse.Namespace()}, path)
    short = timm.create_model(ARCHITECTURE).state_dict()
    for place, index in ((None, 1), ("state_dict", 0), ("state_dict_ema", 1)):
        name = f"timm:{ARCHITECTURE}@{path}" + (f"#{place}" if place else "")
        assert absolute_name(name) == name
        with pytest.raises(WeightsError, match=r"do not fit \(missing: blocks.1") as caught:  # six blocks are wanted
            load_teacher(name)
        assert str(path) in caught.value.problem
        whole = {**short, **states[index]}
        torch.save({"state_dict": {**whole, **states[0]}, "state_dict_ema": {**whole, **states[1]}}, tmp_path / "w#.pth")
        teacher = load_teacher(name.replace(str(path), str(tmp_path / "w#.pth")))
        assert teacher.identity.source == f"{place or 'state_dict_ema'} of {tmp_path / 'w#.pth'}"
        assert torch.equal(teacher.network.state_dict()["norm.weight"], states[index]["norm.weight"])
        assert torch.equal(teacher.network.state_dict()["head.weight"], states[index]["head.weight"])


def test_weights_of_another_patch_size_are_refused(tmp_path: Path) -> None:
    network = timm.create_model("vit_tiny_patch16_224", patch_size=8, img_size=112, depth=1)
    torch.save(network.state_dict(), tmp_path / "a.pth")
    with refused(WeightsError, "are of patches of 8 pixels, those of 'vit_tiny_patch16_224' are of 16", "patch8"):
        load_teacher(f"timm:vit_tiny_patch16_224@{tmp_path / 'a.pth'}")


def test_files_that_are_no_weights__are_called_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "lfs.safetensors").write_text("version https://git-lfs.github.com/spec/v1\nsize 3\n")
    np.savez(tmp_path / "B_16.npz", a=np.zeros(3))
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "jit.pt"))
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    for name, problem, remedy in (
        ("lfs.safetensors", "is a pointer of Git LFS", "git lfs pull"),
        ("B_16.npz", "holds weights of another framework (.npz)", "save the state_dict as .safetensors"),
        ("jit.pt", "is a TorchScript program", "torch.jit.load"),
        ("module.pth", "holds more than tensors, and loading it could run code", "Save its state_dict"),
    ):
        with refused(WeightsError, problem, remedy):
            read_weights(tmp_path / name)


def test_safetensors_and_a_pickle_and_its_wrappings(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "weights.safetensors")
    assert_close(read_weights(tmp_path / "weights.safetensors").state, STATE)
    for key in (None, "model", "state_dict", "teacher", "model_state_dict"):
        for prefix in ("", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."):
            state = {prefix + name: value for name, value in STATE.items()}
            torch.save(state if key is None else {key: state, "epoch": 3}, tmp_path / "weights.pth")
            assert_close(read_weights(tmp_path / "weights.pth").state, STATE)


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
