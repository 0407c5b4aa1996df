"""Hubs, licences and versions of host libraries."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from sparseformers.errors import TeacherError, WeightsError
from sparseformers.teachers.base import check_fit
from sparseformers.teachers.hubs import expect_hub, hub_errors, licence_of

STATE = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.zeros(2)}


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
