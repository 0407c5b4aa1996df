from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.speed import SpeedConfig
from sparseformers.errors import ConfigError


def test_config__refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"models": ()}, "--models names nothing"),
        ({"batch": (1, 0)}, "--batch must be at least 1, not 0"),
        ({"precision": ("fp32", "b16")}, "--precision has no 'b16'. Did you mean 'bf16'"),
        ({"backend": ("openvine",)}, "--backend has no 'openvine'. Did you mean 'openvino'"),
        ({"threads": 0}, "--threads must be at least 1"),
        ({"turns": 0}, "--turns must be at least 1"),
        ({"seconds": 0.0}, "--seconds must be above 0"),
        ({"images": Path("nowhere at all")}, "of --images does not exist"),
        ({"device": "cuda"}, "no CUDA device"),
    ]
    for settings, told in refused:
        with pytest.raises(ConfigError) as error:
            SpeedConfig(**settings)
        assert told in str(error.value)
