"""Hubs, licences and versions of host libraries."""

from pathlib import Path

import pytest
import torch
from torch import nn

from sparseformers.errors import TeacherError, WeightsError
from sparseformers.teachers.base import check_fit
from sparseformers.teachers.hubs import expect_hub, hub_errors, licence_of, restriction

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


class GatedRepoError(OSError):
    pass


def test_a_gated_model__says_how_to_be_let_in() -> None:
    for gated in (GatedRepoError("403"), OSError("You are trying to access a gated repo.\nMake sure ...")):
        with pytest.raises(TeacherError) as error, hub_errors("hf:facebook/dinov3", by_hand="hf:FOLDER"):
            raise OSError("cannot load it") from gated
        assert "'hf:facebook/dinov3' are gated" in error.value.problem
        assert "Accept it on the model's page, log in (hf auth login)" in error.value.remedy
        assert "hf:FOLDER" in error.value.remedy


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
    licences |= {"vit_pe_core_base_patch16_224.fb": "Apache-2.0", "facebook/dinov3-vits16": "DINOv3 License"}
    licences |= {"eva02_base_patch14_224.mim_in22k": "MIT", "aimv2_large_patch14_224.apple_pt": "Apple ML Research Model Terms"}
    licences |= {"nvidia/C-RADIOv3-B": "NVIDIA Open Model License", "google/siglip2-base-patch16-naflex": "Apache-2.0"}
    assert {name: licence_of(name) for name in licences} == licences
    # What a hub states counts, but for AIMv2, of which timm states an older one; unknown ones are passed on.
    assert licence_of("vit_small_patch16_dinov3_qkvb.eupe", stated="fair-noncommercial-research-license").startswith("FAIR")
    assert licence_of("aimv2_large_patch14_224.apple_pt", stated="apple-ascl") == "Apple ML Research Model Terms"
    assert licence_of("anything", stated="some-licence") == "some-licence"


def test_a_licence_that_restricts_use__is_warned_of() -> None:
    assert restriction("Apache-2.0") is None
    assert restriction(None) is None
    sentence = restriction("DINOv3 License")
    assert sentence is not None
    assert "restricts their use, and with it the student's" in sentence
