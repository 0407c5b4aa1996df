"""Fetching the released files, from a folder in the place of the authors' server."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sparseformers.errors import ConfigError, WeightsError
from sparseformers.released import RELEASES, cache_folder, fetch_official
from tests.released.reference import Payload, small_weights

NAME = "sf_v1_tiny"
FILE = RELEASES[NAME]


@pytest.fixture
def weights(fixtures: Path) -> dict[str, Tensor]:
    return small_weights(fixtures, "v1")


@pytest.fixture
def server(weights: dict[str, Tensor], tmp_path: Path) -> str:
    (tmp_path / "server").mkdir()
    torch.save({"model": weights}, tmp_path / "server" / FILE)
    return (tmp_path / "server").as_uri()


def failure(cache: Path, server: str) -> WeightsError:
    with pytest.raises(WeightsError) as caught:
        fetch_official(NAME, cache, base_url=server)
    return caught.value


def test_a_file_is_fetched_once(server: str, weights: dict[str, Tensor], tmp_path: Path) -> None:
    first = fetch_official(NAME, tmp_path / "cache", base_url=server)
    (tmp_path / "server" / FILE).unlink()
    second = fetch_official(NAME, tmp_path / "cache", base_url=server)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [FILE]
    for state in (first, second):
        assert state.keys() == weights.keys()
        assert all(torch.equal(state[name], weights[name]) for name in weights)


def test_a_fetch_that_fails_leaves_nothing_and_says_how_to_go_on(tmp_path: Path) -> None:
    for server in ((tmp_path / "nowhere").as_uri(), "http://127.0.0.1:1"):  # nothing listens there
        error = failure(tmp_path / "cache", server)
        assert f"The released weights of '{NAME}' could not be fetched from {server}/{FILE} (URLError" in error.problem
        assert f"put it at '{tmp_path / 'cache' / FILE}', or give it as --from FILE" in error.remedy
        assert list((tmp_path / "cache").iterdir()) == []


def test_a_file_that_came_cut_short(server: str, tmp_path: Path) -> None:
    whole = (tmp_path / "server" / FILE).read_bytes()
    (tmp_path / "server" / FILE).write_bytes(whole[: len(whole) // 2])
    error = failure(tmp_path / "cache", server)
    assert f"The file '{tmp_path / 'cache' / FILE}' cannot be read as weights" in error.problem
    assert "delete it and run this again" in error.remedy


def test_a_file_that_carries_code_is_not_run(server: str, tmp_path: Path) -> None:
    torch.save({"model": {}, "extra": Payload(tmp_path / "ran")}, tmp_path / "server" / FILE)
    assert "cannot be read as weights (UnpicklingError)" in failure(tmp_path / "cache", server).problem
    assert not (tmp_path / "ran").exists()


def test_the_cache_folder_may_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPARSEFORMERS_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("SPARSEFORMERS_CACHE")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert cache_folder() == tmp_path / "torch" / "hub" / "sparseformers"


def test_a_name_that_was_not_released(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is no model of the name 'sf_v1_tine'\. Did you mean 'sf_v1_tiny'"):
        fetch_official("sf_v1_tine", tmp_path)
