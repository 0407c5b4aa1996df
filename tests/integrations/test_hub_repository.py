"""Repositories of the Hugging Face hub: the cache, an unreachable hub, and what is pushed. No network."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors import safe_open

import sparseformers
from sparseformers.integrations import hub
from sparseformers.integrations.hub import HubError
from sparseformers.train import RunSummary
from tests.integrations.hub_models import FILES, PROVENANCE, check_same_function, student
from tests.refusals import refused


class FakeHub:
    """The hub's side of pushing: keeps what it is asked to."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.token, self.created, self.commit = folder, None, {}, {}

    def open(self, token: str | None = None) -> "FakeHub":
        self.token = token
        return self

    def create_repo(self, repo_id: str, **options: Any) -> Any:
        self.created = {"repo_id": repo_id, **options}
        return SimpleNamespace(repo_id=repo_id if "/" in repo_id else f"someone/{repo_id}")

    def upload_folder(self, folder_path: str, **options: Any) -> str:
        shutil.copytree(folder_path, self.folder)
        self.commit = options
        return f"the commit to {options['repo_id']}"


@pytest.fixture
def fake_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub(tmp_path / "repository")
    monkeypatch.setattr(hub, "HfApi", fake.open)
    return fake


def cached(cache: Path, folder: Path, *, revision: str = "main", commit: str = "a" * 40) -> None:
    """Puts a folder into a cache as the hub's client does with a repository owner/name."""
    repository = cache / "models--owner--name"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / revision).write_text(commit)
    shutil.copytree(folder, repository / "snapshots" / commit)


def test_a_repository_in_the_cache_by_revision(tmp_path: Path) -> None:
    first, second = student(), student(tokens=5)
    for model, revision, commit in ((first, "main", "a" * 40), (second, "v2", "b" * 40)):
        model.save_pretrained(tmp_path / revision)
        cached(tmp_path / "cache", tmp_path / revision, revision=revision, commit=commit)
    for revision, expected in ((None, first), ("v2", second), ("b" * 40, second)):
        options = {"revision": revision, "cache_dir": tmp_path / "cache", "local_files_only": True}
        check_same_function(sparseformers.SparseFormer.from_pretrained("owner/name", **options), expected)


def test_what_the_client_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student().save_pretrained(tmp_path / "fetched")
    asked: dict[str, Any] = {}

    def fetch(repository: str, **options: Any) -> str:
        asked.update(options, repository=repository)
        return str(tmp_path / "fetched")

    monkeypatch.setattr(hub, "snapshot_download", fetch)
    given = {"revision": "v1", "token": "secret", "cache_dir": tmp_path, "force_download": True}
    assert sparseformers.SparseFormer.from_pretrained("owner/name", **given).provenance == PROVENANCE
    files = {"repository": "owner/name", "allow_patterns": ["model.safetensors", "config.json"]}
    assert asked == {**files, **given, "local_files_only": False}


@pytest.mark.usefixtures("dead_hub")
def test_a_hub_that_cannot_be_reached() -> None:
    problem = "There is no folder 'owner/name', and it could not be fetched as a repository of the Hugging Face hub ("
    remedy = "Check the name and the network, or fetch its model.safetensors and config.json elsewhere and give their folder."
    for options in ({}, {"local_files_only": True}):
        with refused(HubError, problem, remedy):
            sparseformers.SparseFormer.from_pretrained("owner/name", **options)
    remedy = "log in by 'hf auth login' or give a token that may write; or use save_pretrained."
    with refused(HubError, "The model could not be pushed to 'owner/name' (", remedy):
        student().push_to_hub("owner/name")


def test_a_repository_of_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    problem, remedy = "The repository 'owner/name' holds no model.safetensors.", "sparseformers.load_teacher('hf:owner/name')"
    with refused(HubError, problem, remedy):
        sparseformers.SparseFormer.from_pretrained("owner/name")


def test_pushing(run: RunSummary, fake_hub: FakeHub) -> None:
    model = sparseformers.load(run.path)
    commit = {"create_pr": True, "commit_message": "A first one"}
    address = model.push_to_hub("owner/name", private=True, token="secret", branch="next", **commit)
    assert address == "the commit to owner/name"
    assert fake_hub.token == "secret"
    assert fake_hub.created == {"repo_id": "owner/name", "private": True, "exist_ok": True}
    assert fake_hub.commit == {"repo_id": "owner/name", "revision": "next", **commit}
    assert {path.name for path in fake_hub.folder.iterdir()} == FILES
    text = (fake_hub.folder / "README.md").read_text()
    assert 'sparseformers.SparseFormer.from_pretrained("owner/name")' in text
    assert f"{run.alignment.centred_cosine:.3f}" in text
    again = sparseformers.SparseFormer.from_pretrained(fake_hub.folder)
    assert again.figures == model.figures
    check_same_function(again, model)


def test_pushing_tells_nobody_where_the_teachers_file_lies(fake_hub: FakeHub) -> None:
    model = student()
    model.push_to_hub("name")
    for path in fake_hub.folder.iterdir():
        assert b"someone/secret" not in path.read_bytes(), path
    with safe_open(fake_hub.folder / "model.safetensors", "pt") as file:
        assert json.loads(file.metadata()["provenance"])["teacher"] == "timm:vit_x@weights.safetensors"
    assert 'from_pretrained("someone/name")' in (fake_hub.folder / "README.md").read_text()
    assert model.provenance == PROVENANCE


def test_saving_and_pushing_at_once(fake_hub: FakeHub, tmp_path: Path) -> None:
    address = student().save_pretrained(tmp_path / "saved", push_to_hub=True, repo_id="owner/name", token="secret")
    assert address == "the commit to owner/name"
    assert fake_hub.token == "secret"
    assert 'from_pretrained("owner/name")' in (tmp_path / "saved" / "README.md").read_text()
