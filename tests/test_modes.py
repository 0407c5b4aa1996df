import pytest
import torch

from sparseformers import modes
from sparseformers.modes import autocast_dtype, resolve_precision

CPU = torch.device("cpu")


def test_resolve_precision__what_is_asked_for_stands() -> None:
    assert [autocast_dtype(resolve_precision(asked, CPU)) for asked in ("fp32", "bf16")] == [None, torch.bfloat16]


@pytest.mark.parametrize(("times_as_fast", "expected"), [(3.0, "bf16"), (1.1, "fp32"), (0.2, "fp32")])
def test_auto__is_bf16_only_where_clearly_faster(times_as_fast: float, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {torch.float32: times_as_fast, torch.bfloat16: 1.0}
    monkeypatch.setattr(modes, "_seconds_of_product", lambda dtype, _device: seconds[dtype])
    assert resolve_precision("auto", CPU) == expected


@pytest.mark.parametrize(("in_hardware", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto__is_no_emulated_bf16(in_hardware: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or in_hardware)
    assert resolve_precision("auto", torch.device("cuda")) == expected
