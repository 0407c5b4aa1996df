"""Alignment and nearest neighbours, by hand."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from sparseformers.errors import DataError
from sparseformers.evaluation import centred_cosine, knn_accuracy, measure_alignment, nearest_neighbours
from sparseformers.settings import to_dict


def cone(rows: int = 40, width: int = 8) -> torch.Tensor:
    """Embeddings with a strong common direction, as foundation models have."""
    return torch.randn(rows, width) + 3 * torch.ones(width)


def test_the_teacher_itself_is_perfectly_aligned() -> None:
    teacher = cone()
    alignment = measure_alignment(teacher, teacher)
    for figure in (alignment.centred_cosine, alignment.cosine_mean, alignment.cosine_median, alignment.cosine_p05):
        assert figure == pytest.approx(1.0, abs=1e-6)
    assert alignment.neighbour_agreement == 1.0
    assert (alignment.images, alignment.neighbours) == (40, 10)
    assert alignment.neighbour_chance == pytest.approx(10 / 39)


def test_a_constant_student_scores_the_baseline_and_a_centred_cosine_of_zero() -> None:
    teacher = cone(rows=400)
    constant = teacher.mean(dim=0).expand_as(teacher)
    alignment = measure_alignment(constant + 1e-3 * torch.randn(8), teacher)
    assert alignment.constant_baseline > 0.8  # the cone: plain cosine flatters
    assert alignment.cosine_mean == pytest.approx(alignment.constant_baseline, abs=1e-3)
    assert alignment.centred_cosine == pytest.approx(0.0, abs=0.1)
    assert measure_alignment(constant, teacher).centred_cosine == pytest.approx(0.0, abs=0.1)


def test_an_unrelated_student_agrees_by_chance() -> None:
    alignment = measure_alignment(torch.randn(600, 16), torch.randn(600, 16))
    assert alignment.neighbour_agreement == pytest.approx(alignment.neighbour_chance, abs=0.005)
    assert alignment.centred_cosine == pytest.approx(0.0, abs=0.05)


def test_figures_do_not_depend_on_the_scale_of_the_space_nor_plain_ones_on_the_student_s_own() -> None:
    teacher = torch.randn(30, 6) + 1
    student = teacher + torch.randn(30, 6)
    plain = measure_alignment(student, teacher)
    for scale in (1e-2, 0.3, 7.0, 1e2):
        assert to_dict(measure_alignment(scale * student, scale * teacher)) == pytest.approx(to_dict(plain), abs=1e-4)
        scaled = measure_alignment(scale * student, teacher)
        assert scaled.cosine_mean == pytest.approx(plain.cosine_mean, abs=1e-5)
        assert scaled.neighbour_agreement == pytest.approx(plain.neighbour_agreement, abs=1e-3)


def test_centred_cosine_by_hand() -> None:
    teacher = torch.tensor([[2.0, 0.0], [0.0, 2.0]])  # mean (1, 1)
    student = torch.tensor([[2.0, 1.0], [1.0, 1.0]])  # centred: (1, 0) against (1, -1); nothing against (-1, 1)
    assert centred_cosine(student, teacher).tolist() == pytest.approx([2**-0.5, 0.0])
    plain = torch.nn.functional.cosine_similarity(student, teacher)
    assert centred_cosine(student, teacher, torch.zeros(2)).tolist() == pytest.approx(plain.tolist())


def test_percentiles_of_the_cosine() -> None:
    angles = torch.linspace(0, torch.pi / 2, 101, dtype=torch.float64)
    student = torch.stack([angles.cos(), angles.sin()], dim=1)
    alignment = measure_alignment(student, torch.tensor([[1.0, 0.0]]).expand(101, 2).double())
    assert alignment.cosine_median == pytest.approx(angles[50].cos().item())
    assert alignment.cosine_p05 == pytest.approx(angles[95].cos().item())
    assert alignment.constant_baseline == pytest.approx(1.0)


@pytest.mark.parametrize("neighbours", [1, 10])
def test_neighbour_agreement_is_that_of_a_brute_force_search(neighbours: int) -> None:
    teacher = torch.randn(60, 12)
    student = teacher + torch.randn(60, 12)

    def search(space: torch.Tensor) -> list[set[int]]:
        finder = NearestNeighbors(n_neighbors=neighbours, metric="cosine", algorithm="brute").fit(space.numpy())
        return [set(row) for row in finder.kneighbors(return_distance=False)]  # without a query: itself excluded

    shared = [len(one & other) / neighbours for one, other in zip(search(student), search(teacher), strict=True)]
    alignment = measure_alignment(student, teacher, neighbours=neighbours)
    assert alignment.neighbour_agreement == pytest.approx(sum(shared) / 60)
    assert 0 < alignment.neighbour_agreement < 1


def test_few_images_have_fewer_neighbours_and_one_and_other_shapes_are_refused() -> None:
    alignment = measure_alignment(torch.randn(4, 3), torch.randn(4, 3))
    assert alignment.neighbours == 3
    assert alignment.neighbour_chance == alignment.neighbour_agreement == 1.0
    with pytest.raises(DataError, match=r"on two images or more, not on 1\. Evaluate on a folder with more readable images\."):
        measure_alignment(torch.ones(1, 3), torch.ones(1, 3))
    for shape in ((5, 4), (4, 3), (5,)):
        with pytest.raises(ValueError, match=r"must both be M x D, not .* and \(5, 3\)"):
            measure_alignment(torch.ones(shape), torch.ones(5, 3))


def test_half_precision_is_measured_in_float32() -> None:
    teacher, student = cone(), cone()
    rounded = measure_alignment(student.bfloat16().float(), teacher.bfloat16().float())
    assert measure_alignment(student.bfloat16(), teacher.bfloat16()) == rounded


def at_degrees(*degrees: float) -> torch.Tensor:
    """Unit vectors of the plane at these angles."""
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_neighbours_by_hand_and_nothing_is_its_own() -> None:
    similarities, indices = nearest_neighbours(at_degrees(0), 5 * at_degrees(60, 10, 180), 2)
    assert indices.tolist() == [[1, 0]]
    assert similarities[0].tolist() == pytest.approx([math.cos(math.radians(10)), 0.5])
    points = at_degrees(0, 10, 30)
    assert nearest_neighbours(points, points, 1).indices.tolist() == [[0], [1], [2]]
    assert nearest_neighbours(points, points, 1, exclude_self=True).indices.tolist() == [[1], [0], [1]]
    assert torch.equal(points, at_degrees(0, 10, 30))


@pytest.mark.parametrize("exclude_self", [False, True])
def test_chunks_do_not_change_the_result(exclude_self: bool) -> None:
    index = torch.randn(37, 5, dtype=torch.float64)
    whole = nearest_neighbours(index, index, 6, exclude_self=exclude_self)
    for at_once in (1, 36, 37, 38, 100, 500, 37 * 36, 37 * 37 - 1, 2000):
        chunked = nearest_neighbours(index, index, 6, exclude_self=exclude_self, at_once=at_once)
        assert torch.equal(chunked.indices, whole.indices)
        torch.testing.assert_close(chunked.similarities, whole.similarities)


def test_what_makes_no_sense_is_refused() -> None:
    for queries, index, k, exclude_self, message in (
        ((3, 4), (5, 2), 1, False, r"must be Q x D and M x D, not \(3, 4\) and \(5, 2\)"),
        ((3, 4), (5, 4), 6, False, "k must be from 1 to 5, not 6"),
        ((3, 4), (5, 4), 0, False, "k must be from 1 to 5, not 0"),
        ((5, 4), (5, 4), 5, True, "k must be from 1 to 4, not 5"),
        ((3, 4), (5, 4), 1, True, "only an index of the queries themselves"),
    ):
        with pytest.raises(ValueError, match=message):
            nearest_neighbours(torch.randn(queries), torch.randn(index), k, exclude_self=exclude_self)


def test_votes_by_hand() -> None:
    index, labels = at_degrees(10, 40, -40), torch.tensor([0, 1, 1])
    query, truth = at_degrees(0), torch.tensor([0])
    # exp(cos 10 / T) against twice exp(cos 40 / T): the one near neighbour wins at a low temperature only.
    assert math.exp(math.cos(math.radians(10)) / 0.07) > 2 * math.exp(math.cos(math.radians(40)) / 0.07)
    assert knn_accuracy(query, truth, index, labels, classes=2, k=3) == 1.0
    assert math.exp(math.cos(math.radians(10))) < 2 * math.exp(math.cos(math.radians(40)))
    assert knn_accuracy(query, truth, index, labels, classes=2, k=3, temperature=1.0) == 0.0
    assert knn_accuracy(query, truth, index, labels, classes=2, k=1, temperature=1.0) == 1.0
    # At a very low temperature nothing overflows, where the near one has the higher label, and a small index lets all vote.
    assert knn_accuracy(query, 1 - truth, index, 1 - labels, classes=2, k=20, temperature=1e-3) == 1.0


@pytest.mark.parametrize("exclude_self", [False, True])
def test_accuracy_is_that_of_a_brute_force_classifier(exclude_self: bool) -> None:
    labels = torch.arange(40) % 4
    index = torch.nn.functional.normalize(torch.randn(4, 6)[labels] + torch.randn(40, 6), dim=1)
    right = 0
    for i in range(40):
        kept = np.arange(40) != i if exclude_self else np.ones(40, dtype=bool)
        # For unit vectors, squared distance = 2 - 2 cosine, so this is exp(cosine / 0.07) up to a factor.
        classifier = KNeighborsClassifier(20, weights=lambda distance: np.exp((1 - distance**2 / 2) / 0.07), algorithm="brute")
        classifier.fit(index.numpy()[kept], labels.numpy()[kept])
        right += classifier.predict(index.numpy()[i : i + 1])[0] == labels[i].item()
    accuracy = knn_accuracy(index, labels, index, labels, classes=4, exclude_self=exclude_self)
    assert accuracy == pytest.approx(right / 40)


def test_labels_must_go_with_the_rows() -> None:
    with pytest.raises(ValueError, match="3 labels of 2 queries, 2 of 2 rows"):
        knn_accuracy(at_degrees(0, 1), torch.zeros(3).long(), at_degrees(0, 1), torch.zeros(2).long(), classes=2)
