"""Each public call, given what its neighbours take, or something else: it works, or says in a sentence what it wants."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import sparseformers
from sparseformers.errors import SparseFormersError
from tests.tiny import write_images


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Things that a public call may be given in the place of another."""
    folder = tmp_path_factory.mktemp("given")
    write_images(folder / "photos", 3)
    (folder / "text.txt").write_text("no weights")
    torch.save({"a": torch.zeros(2)}, folder / "other.pth")
    network = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0, depth=2)
    teacher = sparseformers.load_teacher(network)
    return {
        "nothing": None,
        "a number": 3,
        "a list": ["a", "b"],
        "a mapping": {"a": 1},
        "a name of nothing": "no-such-thing",
        "a teacher's name of nothing": "timm:no_such_network",
        "a path of nothing": folder / "nowhere",
        "a folder of images": folder / "photos",
        "a text file": folder / "text.txt",
        "a file of other weights": folder / "other.pth",
        "a network": network,
        "another module": torch.nn.Linear(2, 2),
        "a teacher": teacher,
        "a student": sparseformers.inherit(teacher, tokens=4).student,
    }


CALLS: dict[str, Any] = {
    "load": lambda it, out: sparseformers.load(it),
    "open_model": lambda it, out: sparseformers.open_model(it),
    "load_teacher": lambda it, out: sparseformers.load_teacher(it),
    "inherit": lambda it, out: sparseformers.inherit(it),
    "bootstrap": lambda it, out: sparseformers.bootstrap(teacher=it, data=["nowhere"], out=out / "run", precision="fp32"),
    "bootstrap, data": lambda it, out: sparseformers.bootstrap(teacher="bundled", data=it, out=out / "run", front="nothing"),
    "resume": lambda it, out: sparseformers.resume(it),
    "evaluate": lambda it, out: sparseformers.evaluate(it, "nowhere"),
    "evaluate, data": lambda it, out: sparseformers.evaluate("no-run", it),
    "embed": lambda it, out: sparseformers.embed(model=it, data=["nowhere"], out=out / "index.npy"),
    "profile": lambda it, out: sparseformers.profile(it, repeats=1, batch=(1,), precision="fp32"),
    "visualize": lambda it, out: sparseformers.visualize(it, "nowhere", out=out / "a.png"),
    "export": lambda it, out: sparseformers.export(it, out / "a.onnx", format="onnx", data=("nowhere",)),
    "fold": lambda it, out: sparseformers.fold(it),
}


@pytest.mark.parametrize("call", CALLS)
def test_whatever_it_is_given__it_works_or_says_what_it_wants(call: str, given: dict[str, Any], tmp_path: Path) -> None:
    for what, it in given.items():
        told = _told(CALLS[call], it, tmp_path)
        assert told is None or (told[0].endswith((".", "?")) and told[1]), (call, what, told)


def _told(call: Any, *given: Any) -> tuple[str, str] | None:
    """What an error says; None where there is none. Others than ours are let through."""
    try:
        call(*given)
    except SparseFormersError as error:
        return error.problem, error.remedy
    return None
