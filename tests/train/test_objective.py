from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from sparseformers.evaluation.attention import AttendingTeacher
from sparseformers.inheritance import inherit
from sparseformers.model import SparseFormerOutput
from sparseformers.model.selector import map_divergence
from sparseformers.rois import cells
from sparseformers.saving import load
from sparseformers.teachers import load_teacher
from sparseformers.train import BootstrapConfig, bootstrap
from sparseformers.train.objective import (
    COARSE_SHARE,
    DENSE_WEIGHT,
    FLOOR,
    MAP_WEIGHT,
    Objective,
    Targets,
    Whitening,
    teacher_targets,
    unexplained_variance,
)
from tests.tiny import SIDE, write_teacher

IMAGES = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def output(embedding: torch.Tensor, tokens: torch.Tensor) -> SparseFormerOutput:
    return SparseFormerOutput(embedding, None, tokens, cells(4).expand(len(embedding), 1, -1, -1), tokens[:, 1:])


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_plain__is_the_cosine_distance() -> None:
    ours, theirs = random(5, 8), random(5, 8, seed=1)
    expected = (1 - F.cosine_similarity(ours, theirs)).mean()
    torch.testing.assert_close(Objective()(output(ours, random(5, 5, 8)), Targets(theirs)), expected)


def test_whitening__brings_embeddings_to_mean_0_and_the_unit_matrix_but_for_the_floor() -> None:
    spread = torch.tensor([10.0, 3.0, 1.0, 0.3])
    embeddings = 5 + random(4000, 4) * spread @ torch.linalg.qr(random(4, 4, seed=1)).Q
    white = Whitening.of(embeddings)(embeddings)
    torch.testing.assert_close(white.mean(dim=0), torch.zeros(4), rtol=0, atol=1e-4)
    covariance = white.T @ white / len(white)
    expected = spread.square().flip(0) / (spread.square().flip(0) + FLOOR * spread.square().mean())
    torch.testing.assert_close(covariance, expected.diag(), rtol=0.1, atol=1e-3)


@pytest.mark.parametrize("count", [1, 3])
def test_whitening__of_few_embeddings_is_finite_and_changes_nothing_where_they_do_not_differ(count: int) -> None:
    white = Whitening.of(random(count, 8))(random(5, 8, seed=1))
    assert white.isfinite().all()
    assert white.shape == (5, 8)
    whitening = Whitening.of(random(1, 8, seed=0).expand(count, 8))
    torch.testing.assert_close(whitening(random(4, 8, seed=1)), random(4, 8, seed=1))


def test_whitening__is_of_both_before_the_cosine() -> None:
    ours, theirs = random(5, 8), random(5, 8, seed=1)
    whitening = Whitening.of(3 + random(40, 8, seed=2) * torch.arange(1, 9))
    loss = Objective(whitening=whitening)(output(ours, random(5, 5, 8)), Targets(theirs))
    torch.testing.assert_close(loss, (1 - F.cosine_similarity(whitening(ours), whitening(theirs))).mean())


def test_whiten__is_done_in_full_precision() -> None:
    ours, theirs, tokens = random(5, 8), random(5, 8, seed=1), random(5, 5, 8)
    objective = Objective(whitening=Whitening.of(random(40, 8, seed=2) * torch.arange(1, 9)))
    expected = objective(output(ours, tokens), Targets(theirs))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(objective(output(ours, tokens), Targets(theirs)), expected, rtol=0, atol=0)


def test_dense__adds_the_distance_of_the_maps_as_seen_from_the_teachers_mean_token() -> None:
    ours, maps, centre = random(3, 8), 5 + random(2, 3, 8, 4, 4), 5 + random(8, seed=1)
    distance = (1 - F.cosine_similarity(*(maps - centre.view(8, 1, 1)), dim=1)).mean()
    told, objective = output(ours, random(3, 5, 8))._replace(dense=maps[0]), Objective(centre=centre)
    torch.testing.assert_close(objective(told, Targets(ours, maps[1])), DENSE_WEIGHT * distance)
    assert objective(output(ours, random(3, 5, 8)), Targets(ours, maps[1])).abs() < 1e-6
    of_layer = Objective(centre=centre, spread=4.0)(told, Targets(ours, maps[1]))  # which is not normed
    torch.testing.assert_close(of_layer, DENSE_WEIGHT * (distance + (maps[0] - maps[1]).square().mean() / 4))


def test_a_map__adds_its_divergence_from_the_teachers() -> None:
    ours, maps = random(3, 8), random(2, 3, 16).softmax(dim=-1).unflatten(-1, (4, 4))
    told, answer = output(ours, random(3, 5, 8))._replace(attention_map=maps[0]), Targets(ours, attention_map=maps[1])
    torch.testing.assert_close(Objective()(told, answer), MAP_WEIGHT * map_divergence(maps[0], maps[1]))


def test_unexplained_variance__is_0_for_the_same_and_1_for_the_mean_token_whatever_the_scale() -> None:
    theirs = 7 + 3 * random(4, 5, 8)
    mean = theirs.mean(dim=(0, 1)).expand_as(theirs)
    for scale in (1e-3, 1.0, 1e3):
        assert unexplained_variance(scale * theirs, scale * theirs).item() == 0
        assert unexplained_variance(scale * mean, scale * theirs).item() == pytest.approx(1, abs=1e-4)
    assert unexplained_variance(torch.ones(2, 3, 4), torch.ones(2, 3, 4)).item() == 0


def test_coarse_weight__holds_what_the_front_gives_to_the_coarse_tokens_and_fades() -> None:
    ours, tokens, coarse = random(3, 8), random(3, 5, 8), random(3, 4, 8, seed=1)
    answer = Targets(ours, coarse=coarse)
    distance = unexplained_variance(tokens[:, 1:], coarse)
    objective = Objective(coarse_weight=2.0)
    for progress, share in ((0.0, 1.0), (COARSE_SHARE / 2, 0.5), (COARSE_SHARE, 0.0), (1.0, 0.0)):
        torch.testing.assert_close(objective.at(progress)(output(ours, tokens), answer), 2 * share * distance)


def test_teacher_targets__tokens_are_those_of_a_student_with_as_many(tmp_path: Path) -> None:
    teacher = load_teacher(write_teacher(tmp_path / "teacher.safetensors"), image_size=SIDE)
    answer = teacher_targets(AttendingTeacher(teacher), IMAGES, None)
    student = inherit(teacher, tokens=teacher.patch_tokens).student.eval()
    with torch.inference_mode():
        theirs = student(IMAGES)
    latent = theirs.tokens[:, teacher.anatomy.prefix_tokens :]
    torch.testing.assert_close(answer.tokens.flatten(2).transpose(1, 2), latent, rtol=0, atol=1e-4)
    torch.testing.assert_close(answer.embedding, theirs.embedding, rtol=0, atol=1e-4)


@pytest.fixture
def settings(shared_settings: BootstrapConfig) -> BootstrapConfig:
    return shared_settings.with_(front="grid", tokens=4, tuned_lr_ratio=1.0, evaluations=2)


def test_bootstrap__by_default_comes_nearer_than_its_start(settings: BootstrapConfig, tmp_path: Path) -> None:
    start = bootstrap(settings.with_(samples=1, lr=1e-12), tmp_path / "start").alignment
    end = bootstrap(settings.with_(samples=160, lr=3e-4), tmp_path / "end").alignment
    assert end.centred_cosine > start.centred_cosine + 0.02


def test_options__change_what_is_learnt_and_elastic_tokens_repeat(settings: BootstrapConfig, tmp_path: Path) -> None:
    learnt: list[torch.Tensor] = []
    for number, options in enumerate([{}, {"whiten": False}, {"tune": 0}, {"elastic": (1, 9)}]):
        bootstrap(settings.with_(lr=1e-3, samples=12, evaluations=1, **options), tmp_path / str(number))
        learnt.append(load(tmp_path / str(number))(IMAGES).embedding)
        assert learnt[number].isfinite().all()
        assert not number or not torch.allclose(learnt[0], learnt[number], atol=1e-4), options
    bootstrap(settings.with_(lr=1e-3, samples=12, evaluations=1, elastic=(1, 9)), tmp_path / "again")
    one, again = (load(tmp_path / name) for name in ("3", "again"))
    assert one(IMAGES, tokens=9).tokens.shape[1] == 9 + one.config.cortex.prefix_tokens
    torch.testing.assert_close(one(IMAGES, 9).embedding, again(IMAGES, 9).embedding, rtol=0, atol=0)


def test_whiten__by_default_depends_on_the_front(settings: BootstrapConfig) -> None:
    assert [settings.with_(front=front).whitens for front in ("grid", "focusing")] == [True, False]
    assert not settings.with_(front="grid", whiten=False).whitens
    assert settings.with_(front="focusing", whiten=True).whitens
