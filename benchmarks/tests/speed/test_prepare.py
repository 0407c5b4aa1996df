import importlib.util

import pytest

from benchmarks.speed.backends import Route
from benchmarks.speed.prepare import Prepared, usable_backends
from sparseformers.errors import ConfigError, MissingExtraError


def test_usable_backends__without_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name))
    usable, left_out = usable_backends(())
    assert usable == ["eager", "compile", "packed", "onnxruntime"]
    assert left_out == [
        "openvino: The package 'openvino' is not installed. Install it with: pip install 'sparseformers[openvino]'."
    ]
    with pytest.raises(MissingExtraError, match=r"sparseformers\[openvino\]"):
        usable_backends(("eager", "openvino"))


def test_left_out__names_models_where_they_are_not_all() -> None:
    prepared = Prepared()
    for model in ("matrix product", "student", "teacher"):
        prepared.leave_out(Route(model, "int8", "eager"), "no such layers")
    prepared.leave_out(Route("teacher", "fp32", "openvino"), "it failed")
    prepared.leave_out(Route("teacher", "fp32", "openvino"), "it failed")
    assert prepared.left_out(2) == ["int8, eager: no such layers", "teacher, fp32, openvino: it failed"]
    with pytest.raises(ConfigError, match=r"Nothing can be measured .*no such layers"):
        prepared.require_models(2)
