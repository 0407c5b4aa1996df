"""Fetching the released files, from a folder in the place of the authors' server."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sparseformers.errors import ConfigError, WeightsError
from sparseformers.released import RELEASES, cache_folder, fetch_official
from tests.refusals import refused
from tests.released.reference import Payload

NAME = "sf_v1_tiny"
FILE = RELEASES[NAME]


@pytest.fixture
def server(weights: dict[str, Tensor], tmp_path: Path) -> str:
    (tmp_path / "server").mkdir()
    torch.save({"model": weights}, tmp_path / "server" / FILE)
    return (tmp_path / "server").as_uri()


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
        problem = f"The released weights of '{NAME}' could not be fetched from {server}/{FILE} (URLError"
        with refused(WeightsError, problem, f"put it at '{tmp_path / 'cache' / FILE}', or give it as --from FILE"):
            fetch_official(NAME, tmp_path / "cache", base_url=server)
        assert list((tmp_path / "cache").iterdir()) == []


def test_a_file_that_came_cut_short(server: str, tmp_path: Path) -> None:
    whole = (tmp_path / "server" / FILE).read_bytes()
    (tmp_path / "server" / FILE).write_bytes(whole[: len(whole) // 2])
    problem = f"The file '{tmp_path / 'cache' / FILE}' cannot be read as weights"
    with refused(WeightsError, problem, "delete it and run this again"):
        fetch_official(NAME, tmp_path / "cache", base_url=server)


def test_a_file_that_carries_code_is_not_run(server: str, tmp_path: Path) -> None:
    torch.save({"model": {}, "extra": Payload(tmp_path / "ran")}, tmp_path / "server" / FILE)
    with refused(WeightsError, "cannot be read as weights (UnpicklingError)"):
        fetch_official(NAME, tmp_path / "cache", base_url=server)
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
