"""Inheritance with the papers' front: truncate, tune, freeze."""

from functools import partial

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from sparseformers.errors import ConfigError, WeightsError
from sparseformers.inheritance import Shares, default_tokens, inherit, parameter_groups, split_depth
from sparseformers.rois import cells
from sparseformers.teachers import Teacher, load_teacher

bootstrapped = partial(inherit, front="focusing")


def vit(**options: object) -> Teacher:
    sizes = {"img_size": 64, "patch_size": 8, "embed_dim": 64, "depth": 6, "num_heads": 2, "num_classes": 5, "init_values": 0.1}
    network = VisionTransformer(**sizes | options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return load_teacher(network)


def test_split_depth__thirds_by_default_or_completes_what_is_given() -> None:
    thirds = {12: (4, 4, 4), 24: (8, 8, 8), 7: (2, 3, 2), 6: (2, 2, 2), 5: (2, 2, 1), 2: (1, 1, 0), 1: (0, 1, 0)}
    given: list[tuple[int, dict[str, int], tuple[int, int, int]]] = [
        *((depth, {}, expected) for depth, expected in thirds.items()),
        (12, {"tune": 0}, (4, 0, 8)),
        (12, {"tune": 8}, (4, 8, 0)),
        (12, {"truncate": 0, "tune": 4}, (0, 4, 8)),
        (12, {"truncate": 0, "tune": 8}, (0, 8, 4)),
        (12, {"freeze": 6}, (4, 2, 6)),
        (12, {"tune": 5, "freeze": 5}, (2, 5, 5)),
        (12, {"truncate": 11}, (11, 1, 0)),
    ]
    for depth, asked, expected in given:
        shares = split_depth(depth, **asked)
        assert (shares.truncate, shares.tune, shares.freeze) == expected, (depth, asked)


def test_split_depth__refuses() -> None:
    for given, message in (
        ({"truncate": 4, "tune": 4, "freeze": 5}, "do not add up to the teacher's 12 blocks"),
        ({"tune": 9, "freeze": 9}, "do not add up to the teacher's 12 blocks"),
        ({"truncate": 13}, "the teacher has 12 blocks"),
        ({"truncate": -1}, "--truncate -1 is impossible"),
        ({"truncate": 12}, "leaves none of the teacher's 12 blocks"),
    ):
        with pytest.raises(ConfigError, match=message):
            split_depth(12, **given)


def test_default_tokens__are_a_quarter_with_the_class_token() -> None:
    assert default_tokens(vit(), "focusing") == 15  # 64 patches -> 4 x 4 with the class token
    assert default_tokens(vit(class_token=False, global_pool="avg"), "focusing") == 16
    assert default_tokens(vit(), "grid") == 16


def test_inherit__takes_the_later_blocks_and_the_head_of_the_teacher() -> None:
    teacher = vit()
    student, report, provenance = bootstrapped(teacher)
    theirs, ours = teacher.network.state_dict(), student.cortex.state_dict()
    for block in range(4):
        for name in ("norm1.weight", "attn.qkv.weight", "ls1.gamma", "mlp.fc2.bias"):
            torch.testing.assert_close(ours[f"blocks.{block}.{name}"], theirs[f"blocks.{block + 2}.{name}"], rtol=0, atol=0)
    torch.testing.assert_close(ours["norm.weight"], theirs["norm.weight"], rtol=0, atol=0)
    torch.testing.assert_close(ours["classifier.weight"], theirs["head.weight"], rtol=0, atol=0)
    expected = teacher.network.cls_token[0] + teacher.network.pos_embed[0, :1]
    torch.testing.assert_close(student.cortex.prefix.tokens, expected, rtol=0, atol=1e-6)
    assert report.shares == provenance.shares == Shares(truncate=2, tune=2, freeze=2)
    assert report.lines()[0] == "Teacher's blocks truncated: 0 to 1; tuned: 2 to 3; frozen: 4 to 5."
    assert provenance.teacher_fingerprint == teacher.fingerprint()


def test_inherit__cortex_reproduces_the_teacher_when_nothing_is_truncated() -> None:
    teacher = vit(reg_tokens=2).eval()
    student = bootstrapped(teacher, truncate=0).student.eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        tokens = teacher.block_inputs(images)[0][:, 3:]
        ours, theirs = student.cortex(tokens, cells(tokens.shape[1])[None]), teacher(images)
    torch.testing.assert_close(ours.embedding, theirs.embedding, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.logits, theirs.logits, rtol=0, atol=1e-5)


def test_inherit__parameter_groups_are_new_tuned_and_frozen() -> None:
    student, report, _ = bootstrapped(vit(), truncate=2, tune=1, freeze=3)
    groups = {group: {name for name, _ in members} for group, members in parameter_groups(student).items()}
    assert "cortex.prefix.tokens" in groups["new"]
    assert all(name.startswith("cortex.blocks.0.") for name in groups["tuned"])
    assert {"cortex.norm.weight", "cortex.classifier.weight", "cortex.blocks.1.norm1.weight"} <= groups["frozen"]
    assert all(parameter.requires_grad for group in ("new", "tuned") for _, parameter in parameter_groups(student)[group])
    assert not any(parameter.requires_grad for _, parameter in parameter_groups(student)["frozen"])
    assert sum(report.parameters.values()) == sum(parameter.numel() for parameter in student.parameters())
    assert "tuned: 2" in report.lines()[0]
    assert "blocks 0 to 1" in report.lines()[2]


def test_inherit__does_not_change_the_teacher_and_shares_nothing_with_it() -> None:
    teacher = vit()
    before = teacher.fingerprint()
    student = bootstrapped(teacher).student
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    assert teacher.fingerprint() == before


def test_inherit__is_a_function_of_the_seed() -> None:
    teacher = vit()
    first, again, other = (bootstrapped(teacher, seed=seed).student.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["focusing.token"], other["focusing.token"])


def test_inherit__sizes_follow_from_the_teacher_and_can_be_set() -> None:
    default = bootstrapped(vit(embed_dim=192, num_heads=3)).student.config.focusing
    assert (default.width, default.channels, default.points, default.iterations) == (128, 64, 16, 4)
    chosen = bootstrapped(vit(), tokens=7, focusing_width=64, channels=16, points=9, iterations=2).student.config.focusing
    assert (chosen.tokens, chosen.width, chosen.channels, chosen.points, chosen.iterations) == (7, 64, 16, 9, 2)
    with pytest.raises(ConfigError, match="tokens must be at least 1"):
        bootstrapped(vit(), tokens=0)


def test_inherit__missing_weight_of_the_teacher_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = vit()
    state = teacher.head_state()
    del state["norm.weight"]
    monkeypatch.setattr(teacher, "head_state", lambda: state)
    with pytest.raises(WeightsError, match=r"missing: norm\.weight"):
        bootstrapped(teacher)
