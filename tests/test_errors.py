from __future__ import annotations

import pickle

import pytest

from sparseformers.errors import ConfigError, MissingExtraError, NonFiniteLossError, SparseFormersError, shorten, suggest


def test_message_is_problem_then_remedy() -> None:
    error = ConfigError("The sky is green.", "Look again.")
    assert str(error) == "The sky is green. Look again."
    assert (error.problem, error.remedy) == ("The sky is green.", "Look again.")


@pytest.mark.parametrize("kind", [SparseFormersError, ConfigError, NonFiniteLossError, MissingExtraError])
def test_errors_survive_pickling_with_their_kind(kind: type[SparseFormersError]) -> None:
    returned = pickle.loads(pickle.dumps(kind("Problem.", "Remedy.")))
    assert type(returned) is kind
    assert (returned.problem, returned.remedy) == ("Problem.", "Remedy.")


def test_missing_extra_names_the_package_and_the_command() -> None:
    error = MissingExtraError.for_package("open_clip", "open-clip")
    assert error.problem == "The package 'open_clip' is not installed."
    assert error.remedy == "Install it with: pip install 'sparseformers[open-clip]'."


def test_suggest_names_the_nearest() -> None:
    assert suggest("token", ["tokens", "width", "points"]) == "Did you mean 'tokens'?"


def test_suggest_names_several_near_ones_best_first() -> None:
    assert suggest("sf_base", ["sf_base_clip", "sf_base_augreg", "v1"]) == "Did you mean 'sf_base_clip' or 'sf_base_augreg'?"


def test_suggest_says_nothing_when_nothing_is_near() -> None:
    assert suggest("zebra", ["tokens", "width"]) == ""


def test_shorten_lists_all_when_few() -> None:
    assert shorten(["b", "a"]) == "a, b"


def test_shorten_counts_the_rest() -> None:
    assert shorten((f"key{i:02}" for i in range(13)), limit=3) == "key00, key01, key02 and 10 more"
