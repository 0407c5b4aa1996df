from pathlib import Path
from typing import Any

import pytest

from sparseformers.errors import ConfigError, MissingExtraError
from sparseformers.exporting import ExportConfig
from sparseformers.exporting.formats import require_format
from sparseformers.exporting.onnx_file import OnnxFile
from sparseformers.exporting.run import FORMATS


def test_refuses_what_is_out_of_range_and_what_a_format_does_not_have() -> None:
    ranges: list[tuple[dict[str, Any], str]] = [
        ({"batch": 0}, "--batch must be at least 1, not 0"),
        ({"images": 0}, "--images must be at least 1"),
        ({"size": "224"}, "--size is 'dynamic' or HxW in pixels, not '224'"),
        ({"size": "20x224"}, "images from 32 pixels a side up, not 20x224"),
        ({"tolerance": 0.0}, "--tolerance must be above 0"),
    ]
    for options, message in ranges:
        with pytest.raises(ConfigError, match=message):
            ExportConfig(format="onnx", **options)
    lacking: list[tuple[dict[str, Any], str]] = [
        ({"format": "onnx", "precision": "bf16"}, "onnx has no bf16: ONNX Runtime .* Use --format openvino, torch-export"),
        ({"format": "torch-export", "precision": "int8"}, "torch-export has no int8: .* Use --format onnx or openvino"),
        ({"format": "safetensors", "precision": "int8"}, "safetensors has no int8"),
        ({"format": "safetensors", "with_preprocessing": True}, "--with-preprocessing has no meaning"),
        ({"format": "safetensors", "batch": 4}, "--batch has no meaning.* Leave out --batch"),
        ({"format": "safetensors", "size": "64x64"}, "--size has no meaning"),
        ({"format": "safetensors", "tokens": 9}, "--tokens has no meaning"),
    ]
    for options, message in lacking:
        settings = ExportConfig(**options)
        with pytest.raises(ConfigError, match=message):
            require_format(FORMATS[settings.format], settings)


def test_names_the_extra_of_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OnnxFile, "libraries", {"no_such_library": "export"})
    with pytest.raises(MissingExtraError, match=r"'no_such_library' is not installed.*sparseformers\[export\]"):
        require_format(OnnxFile(), ExportConfig(format="onnx"))


def test_reads_sizes() -> None:
    assert ExportConfig(format="onnx", size="224x160", data=(Path("photos"),)).height_and_width == (224, 160)
    assert ExportConfig(format="onnx").height_and_width is None
