"""SparseFormers on the Hugging Face hub: ``from_pretrained``, ``save_pretrained``, ``push_to_hub``.

``sparseformers.SparseFormer`` is the core's class with huggingface_hub's ``PyTorchModelHubMixin``, which needs the hub's client
alone. The mixin's own reading and writing are replaced: they ignore unknown keys, and fall back to pickles.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData, PyTorchModelHubMixin, snapshot_download
from huggingface_hub.file_download import try_to_load_from_cache
from safetensors import safe_open

from sparseformers.errors import RunError, SparseFormersError
from sparseformers.evaluation import measure_cost
from sparseformers.files import write_text
from sparseformers.inheritance import Provenance
from sparseformers.integrations import card
from sparseformers.model.sparseformer import SparseFormer as CoreSparseFormer
from sparseformers.saving import MODEL_FILE, digest, load_saved, save
from sparseformers.teachers.hubs import client_errors, expect_hub

LOGGER = logging.getLogger(__name__)
TASK = "image-feature-extraction"  # the hub's name of the task of a SparseFormer


class HubError(SparseFormersError):
    """The hub cannot be reached, or refuses."""


class SparseFormer(CoreSparseFormer, PyTorchModelHubMixin):  # type: ignore[misc]  # the hub's client is not looked into
    """A SparseFormer that can be saved to a folder, pushed to a hub and loaded from either."""

    provenance: Provenance | None = None  # the teacher and what was inherited; None for a model without a teacher
    figures: card.Figures | None = None  # the figures that its run measured; None for a model that comes from no finished run
    _measured: str | None = None  # the digest of the weights that the figures were measured with

    @classmethod
    def of(cls, student: CoreSparseFormer, *, provenance: Provenance | None = None) -> SparseFormer:
        """Makes a model that can be shared of a core model, with its very modules, not copies."""
        with torch.device("meta"):
            shared = cls(student.config, front=student.focusing)
        shared.normalise, shared.cortex, shared.read_out = student.normalise, student.cortex, student.read_out
        shared.provenance = provenance
        return shared.train(student.training)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> SparseFormer:
        """Loads a model from a folder (a run's, or one of :meth:`save_pretrained`), a model file, or a repository of the hub.

        What exists as a path is taken as one; else it is OWNER/NAME, ``revision`` its branch, tag or commit, and ``token`` for a
        private one, by default that of the login. Fetched files go to ``cache_dir``, by default that of the hub's client.
        The model is in evaluation mode, float32, on the CPU. Raises HubError if the repository cannot be fetched, or holds no
        model file, RunError if it is neither a path nor a repository's name, or a folder without a model, WeightsError if the
        file is cut short, was tampered with, is no SparseFormer or not the one of ``config.json``, ConfigError for unknown keys.
        """
        place = Path(pretrained_model_name_or_path)
        if place.exists():
            return cls.from_path(place)
        repository = str(pretrained_model_name_or_path)
        if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", repository) or place.suffix in (".safetensors", ".pth"):
            raise RunError(f"There is no folder or file '{repository}'.", "Give an existing one, or a repository as OWNER/NAME.")
        options = {"revision": revision, "token": token, "force_download": force_download}
        return cls.from_path(_fetch(repository, cache_dir=cache_dir, local_files_only=local_files_only, **options))

    @classmethod
    def from_path(cls, path: Path) -> SparseFormer:
        """Loads a model as :meth:`from_pretrained`, from a folder or a model file."""
        student, provenance = load_saved(path)
        shared = cls.of(student, provenance=provenance)
        if path.is_dir():
            shared.figures = card.read_figures(path / card.CONFIG_FILE, student.config)
            with safe_open(path / MODEL_FILE, "pt") as file:
                shared._measured = str(file.metadata()["digest"])
        return shared

    def save_pretrained(
        self, save_directory: str | Path, *, repo_id: str | None = None, push_to_hub: bool = False, token: str | None = None
    ) -> str | None:
        """Saves ``model.safetensors``, ``config.json`` and a model card, replacing files of these names.

        Figures that a run measured go with the very weights that it measured, and are left out for any others. ``repo_id`` is
        what the card says to load, and where ``push_to_hub`` pushes, by default the folder's name; the result is the address of
        that commit. Raises RunError if the folder is a run's, whose settings would be lost, and HubError if pushing fails.
        """
        folder = Path(save_directory)
        card.refuse_run(folder)
        name = repo_id or folder.name
        figures = self._figures_of_these_weights()
        save(self, folder / MODEL_FILE, provenance=self.provenance)
        card.write_config(folder / card.CONFIG_FILE, self.config, provenance=self.provenance, figures=figures)
        write_text(folder / card.CARD_FILE, str(self._card(name, figures)))
        return self.push_to_hub(name, token=token) if push_to_hub else None

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Push a SparseFormer",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
    ) -> str:
        """Pushes what :meth:`save_pretrained` writes to a repository of the hub, made if need be, in one commit.

        ``repo_id`` is OWNER/NAME, or NAME under the account of the login. The ``token``, by default that of the login, must allow
        writing; a new repository is ``private`` if told so, or if that is the account's default. Returns the address of the
        commit; raises HubError if the hub cannot be reached, or refuses.
        """
        remedy = "Check name and network, and log in by 'hf auth login' or give a token that may write; or use save_pretrained."
        problem = f"The model could not be pushed to '{repo_id}'"
        with client_errors(HubError, problem, remedy), tempfile.TemporaryDirectory() as folder:
            expect_hub(repo_id)
            api = HfApi(token=token)
            name = api.create_repo(repo_id=repo_id, private=private, exist_ok=True).repo_id
            provenance = self.provenance
            if provenance is not None:  # of a teacher's local file only the name is told, not its folders
                provenance = dataclasses.replace(provenance, teacher=card.without_folders(provenance.teacher))
            shared = SparseFormer.of(self, provenance=provenance)
            shared.figures, shared._measured = self.figures, self._measured
            shared.save_pretrained(folder, repo_id=name)
            address = api.upload_folder(
                repo_id=name, folder_path=folder, commit_message=commit_message, revision=branch, create_pr=create_pr
            )
        return str(address)

    def generate_model_card(self, *, name: str) -> ModelCard:
        """The model card for a repository or folder ``name``: metadata for the hub, then the measured figures."""
        return self._card(name, self._figures_of_these_weights())

    def _card(self, name: str, figures: card.Figures | None) -> ModelCard:
        size = self.config.preprocessing.size if self.provenance is None else self.provenance.image_size
        text = card.card_text(
            self.config,
            cost=measure_cost(self, size) if figures is None else figures.student_cost,
            provenance=self.provenance,
            figures=figures,
            loading=f'sparseformers.SparseFormer.from_pretrained("{name}")',
        )
        data = ModelCardData(
            library_name="sparseformers",
            pipeline_tag=TASK,
            tags=["sparseformer"],
            base_model=None if self.provenance is None else card.repository_of(self.provenance.teacher),
            license=None if figures is None or figures.licence is None else figures.licence.lower(),
            model_name=name,
            eval_results=None if figures is None else _results(figures),
        )
        return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")

    def _figures_of_these_weights(self) -> card.Figures | None:
        if self.figures is None or digest(self.state_dict()) == self._measured:
            return self.figures
        LOGGER.warning("The weights have changed since they were measured: their figures are left out of the model card.")
        return None


def _results(figures: card.Figures) -> list[Any]:
    alignment = figures.alignment
    measures = {"centred_cosine": alignment.centred_cosine, "neighbour_agreement": alignment.neighbour_agreement}
    of_all: dict[str, Any] = {"dataset_type": "held-out", "dataset_name": "held-out images of the run", "task_type": TASK}
    return [
        EvalResult(metric_type=name, metric_name=f"{name.replace('_', ' ')} with the teacher", metric_value=value, **of_all)
        for name, value in measures.items()
    ]


def _fetch(repository: str, *, cache_dir: str | Path | None, local_files_only: bool, **options: Any) -> Path:
    problem = f"There is no folder '{repository}', and it could not be fetched as a repository of the Hugging Face hub"
    remedy = f"Check the name and the network, or fetch its {MODEL_FILE} and {card.CONFIG_FILE} elsewhere and give their folder."
    with client_errors(HubError, problem, remedy):
        cached = try_to_load_from_cache(repository, MODEL_FILE, cache_dir=cache_dir, revision=options["revision"])
        if not local_files_only and not isinstance(cached, str):
            expect_hub(repository)
        wanted, places = [MODEL_FILE, card.CONFIG_FILE], {"cache_dir": cache_dir, "local_files_only": local_files_only}
        folder = Path(snapshot_download(repository, allow_patterns=wanted, **places, **options))
    if not (folder / MODEL_FILE).is_file():
        remedy = f"Give one that sparseformers pushed; a teacher is loaded by sparseformers.load_teacher('hf:{repository}')."
        raise HubError(f"The repository '{repository}' holds no {MODEL_FILE}.", remedy)
    return folder
