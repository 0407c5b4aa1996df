"""Folders in the form of the Hugging Face hub: what is written, read, refused, and said about it."""

import copy
import logging
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin

import sparseformers
from sparseformers.errors import ConfigError, RunError, SparseFormersError, WeightsError
from sparseformers.inheritance import Provenance
from sparseformers.integrations import hub
from sparseformers.integrations.card import repository_of, without_folders
from sparseformers.saving import load_saved, save
from sparseformers.train import RunSummary
from tests.integrations.hub_models import FILES, PROVENANCE, check_same_function, student
from tests.model.small import small_model
from tests.refusals import refused
from tests.released.reference import small_weights
from tests.tiny import SIDE, write_teacher
from tests.train.runs import edit


def test_the_functions_that_give_a_student_give_one_that_can_be_shared(tmp_path: Path, fixtures: Path) -> None:
    save(small_model(), tmp_path / "model.safetensors")
    teacher = sparseformers.load_teacher(write_teacher(tmp_path / "teacher.safetensors"), image_size=SIDE)
    inheritance = sparseformers.inherit(teacher, tokens=4)
    for model in (
        sparseformers.load(tmp_path),
        inheritance.student,
        sparseformers.create_model("sf_v1_tiny"),
        sparseformers.load_official(small_weights(fixtures, "v1")),
        sparseformers.SparseFormer(small_model().config),
    ):
        assert isinstance(model, sparseformers.SparseFormer)
        assert isinstance(model, PyTorchModelHubMixin)
    assert inheritance.student.provenance == inheritance.provenance
    assert sparseformers.load.__doc__.startswith("Loads a SparseFormer, in evaluation mode, from a run folder or a model file")


def test_it_is_the_core_model_with_the_same_modules() -> None:
    core = small_model(classes=3).train()
    shared = sparseformers.SparseFormer.of(core)
    assert shared.training
    assert list(shared.state_dict()) == list(core.state_dict())
    assert {id(value) for value in shared.state_dict(keep_vars=True).values()} == {id(value) for value in core.parameters()}
    assert not any(value.is_meta for value in [*shared.parameters(), *shared.buffers()])
    check_same_function(shared.eval(), core)
    check_same_function(copy.deepcopy(shared), core)


def test_a_folder_gives_the_same_model_again(tmp_path: Path) -> None:
    model = student(classes=3)
    assert model.save_pretrained(tmp_path / "saved") is None
    assert {path.name for path in (tmp_path / "saved").iterdir()} == FILES
    again = sparseformers.SparseFormer.from_pretrained(tmp_path / "saved")
    assert not again.training
    assert again.config == model.config
    assert again.provenance == PROVENANCE
    assert again.figures is None
    check_same_function(again, model)
    # The package's other readers take the folder, too.
    check_same_function(sparseformers.load(tmp_path / "saved"), model)
    assert load_saved(tmp_path / "saved" / "model.safetensors").provenance == PROVENANCE
    check_same_function(sparseformers.SparseFormer.from_pretrained(str(tmp_path / "saved" / "model.safetensors")), model)


def test_the_card_of_a_model_that_no_run_has_measured(tmp_path: Path) -> None:
    student().save_pretrained(tmp_path / "saved")
    text = (tmp_path / "saved" / "README.md").read_text()
    assert "# A SparseFormer of timm:vit_x@weights.safetensors\n" in text
    assert "| latent tokens | 6 |" in text
    assert "| multiply-adds at 64 x 48 | 0.00 G |" in text
    assert "No run has recorded held-out figures of these weights." in text
    assert "the first 1 truncated, then 2 tuned and 3 frozen" in text
    assert 'sparseformers.SparseFormer.from_pretrained("saved")' in text
    assert "centred cosine" not in text
    assert "secret" not in text
    sparseformers.SparseFormer(small_model().config).save_pretrained(tmp_path / "new")
    assert "teacher" not in (tmp_path / "new" / "README.md").read_text()


def test_a_run_brings_its_figures_along(run: RunSummary, tmp_path: Path) -> None:
    model = sparseformers.SparseFormer.from_pretrained(run.path)
    assert model.figures.alignment == run.alignment
    assert model.figures.student_cost == run.student_cost
    assert model.figures.patch_tokens == 16
    model.save_pretrained(tmp_path / "saved")
    again = sparseformers.SparseFormer.from_pretrained(tmp_path / "saved")
    assert again.figures == model.figures
    assert again.provenance == model.provenance == load_saved(run.path).provenance
    # The card says what the run's own one does, but for how to load it.
    of_run, card = (run.path / "README.md").read_text(), ModelCard.load(tmp_path / "saved" / "README.md")
    told = of_run.replace('sparseformers.load("run")', 'sparseformers.SparseFormer.from_pretrained("saved")')
    assert card.text.strip() == told.strip()
    assert f"| centred cosine to the teacher | {run.alignment.centred_cosine:.3f} |" in card.text
    assert f"| latent tokens / patch tokens | {model.config.focusing.tokens} | 16 |" in card.text


def test_the_card_tells_the_hub_what_it_shows_and_searches_by(run: RunSummary) -> None:
    model = sparseformers.load(run.path)
    data = model.generate_model_card(name="owner/name").data
    assert (data.library_name, data.pipeline_tag) == ("sparseformers", "image-feature-extraction")
    assert "sparseformer" in data.tags
    results = {result.metric_type: result.metric_value for result in data.eval_results}
    assert results == {name: getattr(run.alignment, name) for name in ("centred_cosine", "neighbour_agreement")}
    assert data.base_model is None  # a local file


def test_the_teachers_name() -> None:
    for teacher, base, named in (
        ("timm:vit_b.augreg", "timm/vit_b.augreg", "timm:vit_b.augreg"),
        ("hf:owner/vit", "owner/vit", "hf:owner/vit"),
        ("hf:/home/someone/vit", None, "hf:vit"),
        ("open_clip:ViT-B-32/openai", None, "open_clip:ViT-B-32/openai"),
        ("open_clip:/home/someone/clip.json@/home/someone/clip.pth", None, "open_clip:clip.json@clip.pth"),
        ("bundled", None, "bundled"),
    ):
        assert repository_of(teacher) == base
        assert without_folders(teacher) == named
    provenance = Provenance(**{**vars(PROVENANCE), "teacher": "hf:owner/vit"})
    card = sparseformers.SparseFormer.of(small_model(), provenance=provenance).generate_model_card(name="x")
    assert card.data.base_model == "owner/vit"
    assert "# A SparseFormer of hf:owner/vit\n" in card.text


def test_figures_are_left_out_for_weights_that_they_are_not_of(
    run: RunSummary, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = sparseformers.load(run.path)
    with torch.no_grad():
        model.cortex.norm.weight.add_(0.1)
    with caplog.at_level(logging.WARNING, logger=hub.__name__):
        sparseformers.load(run.path).save_pretrained(tmp_path / "changed")
        assert not caplog.text
        model.save_pretrained(tmp_path / "changed")  # in the place of the unchanged one
    assert "The weights have changed since they were measured" in caplog.text
    assert "No run has recorded held-out figures" in (tmp_path / "changed" / "README.md").read_text()
    assert sparseformers.load(tmp_path / "changed").figures is None
    assert model.figures is not None


def test_a_run_is_not_written_over(run: RunSummary, tmp_path: Path) -> None:
    before = (run.path / "config.json").read_bytes()
    with refused(RunError, f"The folder '{run.path}' is a run, whose settings would be lost.", "Save to another folder."):
        student().save_pretrained(run.path)
    assert (run.path / "config.json").read_bytes() == before
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"file' is a file\. Save to a folder\."):
        student().save_pretrained(tmp_path / "file")


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("once")
    student().save_pretrained(folder)
    return folder


@pytest.fixture
def saved(once: Path, tmp_path: Path) -> Path:
    """A saved model to be damaged."""
    return Path(shutil.copytree(once, tmp_path / "saved"))


def test_a_configuration_that_does_not_fit(saved: Path) -> None:
    whole = (saved / "config.json").read_text()
    for error, message, change in (
        (ConfigError, r"unknown key 'focusing\.tokns'\. Did you mean 'tokens'", lambda model: model["focusing"].update(tokns=3)),
        (WeightsError, r"and the weights beside it are of two models\. Fetch", lambda model: model["focusing"].update(tokens=3)),
    ):
        (saved / "config.json").write_text(whole)
        edit(saved / "config.json", lambda content, change=change: change(content["resolved"]["model"]))
        with pytest.raises(error, match=message):
            sparseformers.SparseFormer.from_pretrained(saved)
    edit(saved / "config.json", lambda content: content.update(figurs={}))
    with pytest.raises(ConfigError, match=r"unknown key 'figurs'\. Did you mean 'figures'\? Known keys are: settings, resolved"):
        sparseformers.SparseFormer.from_pretrained(saved)
    for content in ("{", "[]", '{"resolved": 3}'):
        (saved / "config.json").write_text(content)
        said = r"config\.json' (cannot be read as JSON|is not a mapping).* Fetch or save the model again\."
        with pytest.raises(SparseFormersError, match=said):
            sparseformers.SparseFormer.from_pretrained(saved)


def test_places_that_are_none(tmp_path: Path) -> None:
    for name in (tmp_path / "nothing", "nothing", "./runs/first", "runs/model.safetensors", "a/b/c"):
        remedy = "Give an existing one, or a repository as OWNER/NAME."
        with refused(RunError, f"There is no folder or file '{name}'.", remedy):
            sparseformers.SparseFormer.from_pretrained(name)
    with pytest.raises(RunError, match="is not a run of sparseformers"):
        sparseformers.SparseFormer.from_pretrained(tmp_path)
