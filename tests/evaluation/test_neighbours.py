from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from sparseformers.evaluation import knn_accuracy, nearest_neighbours


def at_degrees(*degrees: float) -> torch.Tensor:
    """Unit vectors of the plane at these angles."""
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_neighbours_by_hand() -> None:
    similarities, indices = nearest_neighbours(at_degrees(0), 5 * at_degrees(60, 10, 180), 2)
    assert indices.tolist() == [[1, 0]]
    assert similarities[0].tolist() == pytest.approx([math.cos(math.radians(10)), 0.5])


def test_nothing_is_its_own_neighbour() -> None:
    points = at_degrees(0, 10, 30)
    assert nearest_neighbours(points, points, 1).indices.tolist() == [[0], [1], [2]]
    assert nearest_neighbours(points, points, 1, exclude_self=True).indices.tolist() == [[1], [0], [1]]


@given(at_once=st.integers(min_value=1, max_value=2000), exclude_self=st.booleans())
def test_chunks_do_not_change_the_result(at_once: int, exclude_self: bool) -> None:
    index = torch.randn(37, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    whole = nearest_neighbours(index, index, 6, exclude_self=exclude_self)
    chunked = nearest_neighbours(index, index, 6, exclude_self=exclude_self, at_once=at_once)
    assert torch.equal(chunked.indices, whole.indices)
    torch.testing.assert_close(chunked.similarities, whole.similarities)


def test_embeddings_themselves_are_left_alone() -> None:
    index = torch.randn(6, 4)
    before = index.clone()
    nearest_neighbours(index, index, 2, exclude_self=True)
    assert torch.equal(index, before)


@pytest.mark.parametrize(
    ("queries", "index", "k", "exclude_self", "message"),
    [
        ((3, 4), (5, 2), 1, False, r"must be Q x D and M x D, not \(3, 4\) and \(5, 2\)"),
        ((3, 4), (5, 4), 6, False, "k must be from 1 to 5, not 6"),
        ((3, 4), (5, 4), 0, False, "k must be from 1 to 5, not 0"),
        ((5, 4), (5, 4), 5, True, "k must be from 1 to 4, not 5"),
        ((3, 4), (5, 4), 1, True, "only an index of the queries themselves"),
    ],
)
def test_what_makes_no_sense_is_refused(
    queries: tuple[int, int], index: tuple[int, int], k: int, exclude_self: bool, message: str
) -> None:
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


def test_accuracy_is_a_share_of_the_queries() -> None:
    index, labels = at_degrees(0, 90), torch.tensor([0, 1])
    accuracy = knn_accuracy(at_degrees(5, 85, 2, 80), torch.tensor([0, 1, 1, 0]), index, labels, classes=2, k=1)
    assert accuracy == 0.5


@pytest.mark.parametrize("exclude_self", [False, True])
def test_accuracy_is_that_of_a_brute_force_classifier(exclude_self: bool) -> None:
    labels = torch.arange(80) % 4
    index = torch.nn.functional.normalize(torch.randn(4, 6)[labels] + torch.randn(80, 6), dim=1)
    right = 0
    for i in range(80):
        kept = np.arange(80) != i if exclude_self else np.ones(80, dtype=bool)
        # For unit vectors, squared distance = 2 - 2 cosine, so this is exp(cosine / 0.07) up to a factor.
        classifier = KNeighborsClassifier(20, weights=lambda distance: np.exp((1 - distance**2 / 2) / 0.07), algorithm="brute")
        classifier.fit(index.numpy()[kept], labels.numpy()[kept])
        right += classifier.predict(index.numpy()[i : i + 1])[0] == labels[i].item()
    accuracy = knn_accuracy(index, labels, index, labels, classes=4, exclude_self=exclude_self)
    assert accuracy == pytest.approx(right / 80)


def test_itself_among_the_voters_flatters() -> None:
    points, labels = torch.randn(50, 3), torch.randint(5, (50,))
    with_self = knn_accuracy(points, labels, points, labels, classes=5, k=1)
    assert with_self == 1.0
    assert knn_accuracy(points, labels, points, labels, classes=5, k=1, exclude_self=True) < 0.6


def test_a_low_temperature_does_not_overflow() -> None:
    index, labels = at_degrees(10, 20), torch.tensor([1, 0])
    assert knn_accuracy(at_degrees(0), torch.tensor([1]), index, labels, classes=2, k=2, temperature=1e-3) == 1.0


def test_a_small_index_lets_all_vote() -> None:
    index, labels = at_degrees(0, 90), torch.tensor([0, 1])
    assert knn_accuracy(at_degrees(5), torch.tensor([0]), index, labels, classes=2, k=20) == 1.0


def test_labels_must_go_with_the_rows() -> None:
    with pytest.raises(ValueError, match="3 labels of 2 queries, 2 of 2 rows"):
        knn_accuracy(at_degrees(0, 1), torch.zeros(3).long(), at_degrees(0, 1), torch.zeros(2).long(), classes=2)
