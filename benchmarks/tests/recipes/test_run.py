"""Whole comparisons on the CPU with a tiny teacher and generated photographs."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.recipes import Comparison, ComparisonConfig, Findings, open_comparison, recipe_rows, run_rows
from benchmarks.recipes.measure import Judge
from benchmarks.tests.recipes.conditions import CLASSES, TEST, TINY, TRAIN, Finished, tiny_comparison
from sparseformers.cli.main import main
from sparseformers.data import Batch
from sparseformers.errors import DataError, NonFiniteLossError, RunError
from sparseformers.evaluation import Evaluation
from sparseformers.train import RunFolder, bootstrap
from sparseformers.train.recipe import Recipe
from sparseformers.train.step import StepFigures, TrainingStep
from tests.tiny import write_images, write_teacher

MODULE = sys.modules[Comparison.__module__]
SLOWER = Recipe("slower", "A lower rate.", {"lr": 1e-4})


def run(config: ComparisonConfig, *more: Recipe, baselines: bool = False) -> Findings:
    return run_rows(open_comparison(config), [*recipe_rows(["paper"]), *more], baselines=baselines)


def written(config: ComparisonConfig) -> dict[str, object]:
    return json.loads((config.out / "report.json").read_text())


def never(*_arguments: object, **_options: object) -> None:
    raise AssertionError("it was done again")


def test_run__writes_a_run_for_each_row_and_seed(finished: Finished) -> None:
    out = finished[0].out
    assert {path.name for path in out.iterdir()} == {
        *("bench.json", "baselines.json", "report.json", "teacher.safetensors", "paper")
    }
    assert {path.name for path in (out / "paper").iterdir()} == {"seed-0", "seed-1"}
    for seed in (0, 1):
        folder = RunFolder(out / "paper" / f"seed-{seed}")
        assert folder.model.is_file()
        settings = folder.settings()
        assert settings.flat().items() >= {"seed": seed, "front": "focusing", "lr": 1e-3, "tokens": 4}.items()
        assert json.loads((folder.path / "bench.json").read_text())["seed"] == seed


def test_run__means_and_spreads_are_those_of_the_seeds(finished: Finished) -> None:
    config, report = finished
    (row,) = report.rows
    kept = [json.loads((config.out / "paper" / f"seed-{seed}" / "bench.json").read_text()) for seed in (0, 1)]
    cosines = torch.tensor([run["measurement"]["evaluation"]["alignment"]["centred_cosine"] for run in kept]).double()
    assert row.figures is not None
    assert row.figures.centred_cosine is not None
    assert row.figures.centred_cosine.mean == pytest.approx(cosines.mean().item())
    assert row.figures.centred_cosine.deviation == pytest.approx(cosines.std().item())
    assert row.figures.centred_cosine.n == 2
    assert row.figures.samples == (8, 0, 2)
    assert row.figures.minutes is not None
    assert row.figures.minutes.mean == pytest.approx(sum(run["seconds"] for run in kept) / 120)
    assert written(config) == json.loads(json.dumps(report.to_dict()))


def test_run__judges_as_evaluate_does(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    config, report = finished
    measured = report.rows[0].runs[1].measurement.evaluation
    folder = str(config.out / "paper" / "seed-1")
    assert main(["evaluate", folder, "--data", str(config.eval_data), "--precision", "fp32", "--json"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert measured.alignment.images == len(CLASSES) * TEST
    for name, value in vars(measured.alignment).items():
        assert value == pytest.approx(evaluated["alignment"][name], abs=1e-5), name
    for name in ("classifier_student", "classifier_teacher", "knn_drop_in", "knn_teacher", "classifier_agreement"):
        assert getattr(measured, name) == pytest.approx(evaluated[name]), name
    assert measured.knn_student is None  # only the teacher makes an index


def test_run__the_curve_is_that_of_the_training(finished: Finished) -> None:
    config, report = finished
    run = report.rows[0].runs[0]
    assert [point.samples for point in run.curve] == [0, 4, 8]
    logged = [entry for entry in RunFolder(config.out / "paper" / "seed-0").read_metrics() if entry["kind"] == "held_out"]
    assert [point.centred_cosine for point in run.curve] == [entry["centred_cosine"] for entry in logged]


def test_run__teacher_and_baselines_need_no_training(finished: Finished) -> None:
    _, report = finished
    itself: Evaluation = report.teacher.evaluation
    assert itself.alignment.centred_cosine == pytest.approx(1)
    assert itself.alignment.neighbour_agreement == 1
    assert itself.classifier_student == itself.classifier_teacher
    assert itself.knn_drop_in == itself.knn_teacher
    low, merged, early = report.baselines
    assert low == "teacher at 32 px, 4 tokens"
    assert "of 16 tokens left" in merged
    assert report.share(report.baselines[low].cost.multiply_adds) < 0.3
    student = report.rows[0].runs[0].measurement.cost.multiply_adds
    for schedule in (merged, early):
        assert 0.8 * student < report.baselines[schedule].cost.multiply_adds <= 1.03 * student
    for baseline in report.baselines.values():
        assert itself.alignment.constant_baseline == baseline.evaluation.alignment.constant_baseline
        assert baseline.evaluation.alignment.cosine_mean < 1
    assert report.conditions.train_images == len(CLASSES) * TRAIN


def test_run__again_does_nothing_again(copied: Callable[..., ComparisonConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    config = copied()
    before = written(config)
    monkeypatch.setattr(MODULE, "bootstrap", never)
    monkeypatch.setattr(MODULE, "resume", never)
    monkeypatch.setattr(Judge, "answers", never)
    assert run(config, baselines=True).to_dict() == before
    assert written(config) == before


def test_run__trains_only_what_is_new(
    copied: Callable[..., ComparisonConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []

    def counted(settings: object, out: Path, **options: object) -> object:
        trained.append(f"{out.parent.name}/{out.name}")
        return bootstrap(settings, out, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(MODULE, "bootstrap", counted)
    report = run(copied(seeds=1), SLOWER)
    assert trained == ["slower/seed-0"]
    assert [[measured.seed for measured in row.runs] for row in report.rows] == [[0], [0]]
    assert RunFolder(tmp_path / "comparison" / "slower" / "seed-0").settings().optimisation.lr == 1e-4


def test_run__measures_a_training_that_was_stopped_before_that(
    copied: Callable[..., ComparisonConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = copied()
    before = written(config)
    (config.out / "paper" / "seed-1" / "bench.json").unlink()
    monkeypatch.setattr(MODULE, "bootstrap", never)
    run(config, baselines=True)
    assert written(config) == before


def test_run__a_training_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_comparison(tmp_path, classes=0, seeds=1, overrides=(*TINY, "checkpoint_every=1steps"))
    original = TrainingStep.__call__

    def stop_at_the_second_batch(self: TrainingStep, batch: Batch, *, rate: float, samples: int, progress: float) -> StepFigures:
        if samples == 4:
            raise KeyboardInterrupt
        return original(self, batch, rate=rate, samples=samples, progress=progress)

    monkeypatch.setattr(TrainingStep, "__call__", stop_at_the_second_batch)
    with pytest.raises(KeyboardInterrupt):
        run(config)
    monkeypatch.undo()
    monkeypatch.setattr(MODULE, "bootstrap", never)
    (row,) = run(config).rows
    (measured,) = row.runs
    assert measured.samples == 8
    assert [point.samples for point in measured.curve] == [0, 4, 8]
    assert row.figures is not None
    assert row.figures.top1 is None  # the teacher has no classifier
    assert row.figures.knn_drop_in is not None


def test_run__other_settings_are_refused_before_any_training(
    copied: Callable[..., ComparisonConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "bootstrap", never)
    with pytest.raises(RunError, match=r"has other settings than are asked for: samples \(8 then, 16 now\)") as caught:
        run(copied(budget="16-samples"))
    assert "Choose another --out" in caught.value.remedy
    with pytest.raises(RunError, match=r"batch_size \(4 then, 2 now\)"):
        run(copied(overrides=(*TINY, "batch_size=2")))


def test_run__settings_without_effect_may_differ(
    copied: Callable[..., ComparisonConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "bootstrap", never)
    assert len(run(copied(overrides=(*TINY, "checkpoint_every=3m"))).rows[0].runs) == 2


def test_open_comparison__refuses_another_teacher_or_images(copied: Callable[..., ComparisonConfig], tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds a comparison of something else.*teacher_fingerprint") as caught:
        open_comparison(copied(teacher=write_teacher(tmp_path / "other.safetensors", classes=4)))
    assert "Choose another --out" in caught.value.remedy
    with pytest.raises(RunError, match=r"holds a comparison of something else.*image_size"):
        open_comparison(copied(image_size=48))


def test_open_comparison__keeps_the_precision_of_its_beginning(copied: Callable[..., ComparisonConfig]) -> None:
    config = copied(overrides=tuple("precision=auto" if pair.startswith("precision") else pair for pair in TINY))
    assert open_comparison(config).conditions.precision == "fp32"
    with pytest.raises(RunError, match=r"precision \(fp32 then, bf16 now\)"):
        open_comparison(copied(overrides=(*TINY, "precision=bf16")))


def test_open_comparison__a_folder_in_use(tmp_path: Path) -> None:
    config = tiny_comparison(tmp_path)
    write_images(config.out, 1)
    with pytest.raises(RunError, match="holds no comparison of recipes") as caught:
        open_comparison(config)
    assert "Choose another --out" in caught.value.remedy
    shutil.rmtree(config.out)
    config.out.write_text("")
    with pytest.raises(RunError, match="is a file"):
        open_comparison(config)
    config.out.unlink()
    config.out.mkdir()
    (config.out / "bench.json").write_text("{")
    with pytest.raises(RunError, match="cannot be read"):
        open_comparison(config)
    (config.out / "bench.json").write_text('{"teacher": 3}')
    with pytest.raises(RunError, match="is not of a comparison"):
        open_comparison(config)


def test_open_comparison__images_that_cannot_be_judged_on(tmp_path: Path) -> None:
    config = tiny_comparison(tmp_path)
    for eval_data in (config.eval_data / "test", config.eval_data / "test" / "apple"):
        with pytest.raises(DataError, match="has no labelled test part") as caught:
            open_comparison(tiny_comparison(tmp_path, eval_data=eval_data))
        assert "train/CLASS/*" in caught.value.remedy
    with pytest.raises(DataError, match="nowhere"):
        open_comparison(tiny_comparison(tmp_path, eval_data=tmp_path / "nowhere"))
    with pytest.raises(DataError, match="nowhere"):
        open_comparison(tiny_comparison(tmp_path, data=(tmp_path / "nowhere",)))
    assert not config.out.exists()


def test_run__a_loss_that_is_not_finite_is_noted_and_the_others_go_on(
    copied: Callable[..., ComparisonConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(settings: object, out: Path, **_options: object) -> None:
        raise NonFiniteLossError("The loss is not a finite number.", "Lower --lr.")

    monkeypatch.setattr(MODULE, "bootstrap", diverge)
    report = run(copied(), Recipe("wild", "A high rate.", {"lr": 1e3}))
    paper, wild = report.rows
    assert len(paper.runs) == 2
    assert wild.figures is None
    assert report.notes == tuple(f"Seed {seed} of wild came to nothing: The loss is not a finite number." for seed in (0, 1))
