"""The list of what can be inherited from."""

import json
from pathlib import Path

import pytest
import timm

from sparseformers.cli.main import main
from sparseformers.evaluation.cost import measure_cost
from sparseformers.inheritance import inherit
from sparseformers.inheritance.catalogue import family_of, multiply_adds
from sparseformers.teachers import load_teacher
from sparseformers.teachers import timm as adapter
from tests.teachers.timm_families import small

ACCEPTED = (Path(__file__).parent / "accepted_timm.txt").read_text().split()
"""timm's architectures with weights that could be inherited from with version 1.0.31."""


def test_teachers__lists_those_that_match_with_what_they_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["teachers", "timm:vit_small_patch16_dinov3*", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["refused"] == []
    assert "dinov3_vit" in listed["huggingface_types"]
    rows = {row["name"]: row for row in listed["accepted"]}
    row = rows["timm:vit_small_patch16_dinov3.lvd1689m"]
    assert row["family"] == "DINOv3"
    assert row["licence"] == "DINOv3 License"
    assert (row["patch_size"], row["positions"], row["image_size"], row["student_tokens"]) == (16, "rotary", [256, 256], 64)
    assert row["parameters"] == sum(weight.numel() for weight in timm.create_model("vit_small_patch16_dinov3").parameters())
    assert 0.2 < row["student_multiply_adds"] / row["multiply_adds"] < 0.26
    assert main(["teachers", "open_clip:eva02-b-16/*", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["accepted"]
    assert (row["family"], row["licence"]) == ("EVA-02", "MIT")


def test_teachers__prints_a_table_and_why_others_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["teachers", "timm:vit_tiny_r_s16"]) == 0
    printed = capsys.readouterr().out
    assert "0 can be inherited from" in printed
    assert main(["teachers", "timm:vit_tiny_r_s16", "--refused"]) == 0
    assert "it is a hybrid with a convolutional backbone" in capsys.readouterr().out
    assert main(["teachers", "timm:beit_base_patch16_224"]) == 0
    printed = capsys.readouterr().out
    assert "timm:beit_base_patch16_224.in22k_ft_in22k" in printed
    assert "relative" in printed
    assert "(49 tokens)" in printed


@pytest.mark.parametrize("family", ["DINOv3", "EVA-02's CLIP", "Perception Encoder, core, gigantic", "AIMv2", "DeiT, distilled"])
def test_multiply_adds_counted_by_hand_are_those_of_the_networks(family: str) -> None:
    teacher = load_teacher(small(family), image_size=64)
    student = inherit(teacher, tokens=16).student
    measured = measure_cost(student, (64, 64)).multiply_adds
    assert multiply_adds(teacher, 16) == pytest.approx(measured, rel=0.01)


def test_families_by_name() -> None:
    for name, family in (
        ("timm:vit_small_patch16_dinov3.lvd1689m", "DINOv3"),
        ("timm:vit_base_patch16_siglip_224.v2_webli", "SigLIP 2"),
        ("timm:vit_base_patch16_siglip_224.webli", "SigLIP"),
        ("open_clip:PE-Core-B-16/meta", "Perception Encoder"),
        ("timm:vit_base_patch16_rope_224.naver_in1k", "ViT, rotary positions"),
        ("timm:vit_base_patch16_224.augreg_in21k", "ViT"),
    ):
        assert family_of(name) == family


@pytest.mark.slow
def test_no_architecture_is_lost() -> None:
    assert len(ACCEPTED) > 200
    for architecture in ACCEPTED:
        if timm.is_model(architecture):  # older versions do not know them all
            adapter.on_meta(architecture)


def test_one_architecture_of_each_family_is_accepted() -> None:
    for architecture in (
        "vit_small_patch16_dinov3",
        "eva02_enormous_patch14_clip_224",
        "vit_pe_core_tiny_patch16_384",
        "aimv2_large_patch14_224",
        "beitv2_base_patch16_224",
        "vit_srelpos_medium_patch16_224",
        "deit_tiny_distilled_patch16_224",
    ):
        assert architecture in ACCEPTED
        adapter.on_meta(architecture)
