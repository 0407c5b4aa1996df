import pickle

from sparseformers.errors import ConfigError, MissingExtraError, NonFiniteLossError, SparseFormersError, shorten, suggest


def test_errors_survive_pickling_with_their_kind() -> None:
    for kind in (SparseFormersError, ConfigError, NonFiniteLossError, MissingExtraError):
        returned = pickle.loads(pickle.dumps(kind("Problem.", "Remedy.")))
        assert (type(returned), returned.problem, str(returned)) == (kind, "Problem.", "Problem. Remedy.")


def test_missing_extra_names_the_package_and_the_command() -> None:
    told = "The package 'open_clip' is not installed. Install it with: pip install 'sparseformers[open-clip]'."
    assert str(MissingExtraError.for_package("open_clip", "open-clip")) == told


def test_suggest__the_nearest_best_first_or_nothing() -> None:
    assert suggest("token", ["tokens", "width", "points"]) == "Did you mean 'tokens'?"
    assert suggest("sf_base", ["sf_base_clip", "sf_base_augreg", "v1"]) == "Did you mean 'sf_base_clip' or 'sf_base_augreg'?"
    assert suggest("zebra", ["tokens", "width"]) == ""


def test_shorten__lists_all_when_few_and_counts_the_rest() -> None:
    assert shorten(["b", "a"]) == "a, b"
    assert shorten((f"key{i:02}" for i in range(13)), limit=3) == "key00, key01, key02 and 10 more"
