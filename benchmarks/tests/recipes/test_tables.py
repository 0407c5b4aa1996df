from collections.abc import Callable

import pytest

from benchmarks.recipes import Findings, recipes_table, table_1
from benchmarks.recipes.folder import Conditions, RunMeasurement
from benchmarks.recipes.measure import Measurement
from benchmarks.recipes.report import RowReport, Spread, figures, spread
from benchmarks.recipes.tables import decimal, percent
from benchmarks.text_table import TextTable
from sparseformers.evaluation import Alignment, Cost, Evaluation
from sparseformers.inheritance import Shares
from sparseformers.train.recipe import Recipe


def measurement(top1: float | None, *, multiply_adds: int = 400_000_000) -> Measurement:
    alignment = Alignment(0.8, 0.9, 0.9, 0.7, 0.5, 0.4, 0.01, 10, 100)
    evaluation = Evaluation(alignment, knn_teacher=0.9, knn_drop_in=0.7, classifier_teacher=0.9, classifier_student=top1)
    return Measurement(evaluation, Cost(17_500_000, multiply_adds, (112, 112)))


def trained(seed: int, top1: float | None) -> RunMeasurement:
    return RunMeasurement(seed, measurement(top1), 60_000, 900.0, Shares(truncate=4, tune=4, freeze=4), ())


@pytest.fixture
def report() -> Callable[..., Findings]:
    conditions = Conditions(
        teacher="bundled",
        teacher_fingerprint="0",
        eval_data="images",
        images_digest="1",
        test_images=2893,
        train_images=5784,
        image_size=(112, 112),
        crop=0.875,
        precision="fp32",
    )

    def make(*top1: float | None, failures: tuple[str, ...] = ()) -> Findings:
        runs = tuple(trained(seed, value) for seed, value in enumerate(top1))
        teacher = measurement(0.87 if None not in top1 else None, multiply_adds=1_600_000_000)
        rows = (RowReport(Recipe("paper", "", {}), runs, failures),)
        return Findings(conditions, "60k-samples", 16, teacher, {"merged": measurement(None)}, rows, failures)

    return make


def cells(table: TextTable, row: int) -> dict[str, str]:
    return dict(zip(table.columns, table.rows[row], strict=True))


def test_spread__is_the_sample_standard_deviation() -> None:
    assert spread([1.0, 2.0, 3.0]) == Spread(2.0, 1.0, 3)
    assert spread([0.5]) == Spread(0.5, None, 1)
    assert spread([]) is None
    assert spread([0.5, None]) is None


def test_figures_and_texts__with_and_without_training_and_spread() -> None:
    found = figures([measurement(0.5)])
    assert (found.samples, found.minutes, found.top1) == (None, None, (0.5, None, 1))
    assert percent(Spread(0.735, 0.004, 3)) == "73.5 ± 0.4%"
    assert percent(Spread(0.735, None, 1)) == "73.5%"
    assert decimal(Spread(0.8123, 0.0121, 3)) == "0.812 ± 0.012"
    assert decimal(None) == ""


def test_recipes_table__teacher_first_then_what_needs_no_training_then_the_recipes(report: Callable[..., Findings]) -> None:
    table = recipes_table(report(0.7, 0.72))
    assert [row[0] for row in table.rows] == ["teacher", "merged", "paper"]
    assert cells(table, 0)["top-1"] == "87.0%"
    assert cells(table, 1)["top-1"] == ""
    assert cells(table, 2) == {
        "": "paper",
        "top-1": "71.0 ± 1.4%",
        "centred cosine": "0.800 ± 0.000",
        "drop-in k-NN": "70.0 ± 0.0%",
        "10-NN agreement": "40.0 ± 0.0%",
        "multiply-adds": "0.40 G",
        "share": "25%",
        "parameters": "17.5 M",
        "samples": "60,000",
        "minutes": "15.0",
        "seeds": "2",
    }


def test_table_1__has_the_papers_form(report: Callable[..., Findings]) -> None:
    table = table_1(report(0.7, 0.72))
    assert table.columns[:4] == ("", "truncated", "tunable", "top-1")
    assert cells(table, 0) == {
        "": "paper",
        "truncated": "4",
        "tunable": "4 of 8",
        "top-1": "71.0 ± 1.4%",
        "centred cosine": "0.800 ± 0.000",
        "multiply-adds": "0.40 G",
        "parameters": "17.5 M",
        "seeds": "2",
    }


def test_tables__leave_top_1_out_where_no_row_has_it(report: Callable[..., Findings]) -> None:
    assert "top-1" not in recipes_table(report(None, None)).columns
    assert "top-1" not in table_1(report(None, None)).columns


def test_tables__a_row_of_which_nothing_came_is_a_note(report: Callable[..., Findings]) -> None:
    failed = report(failures=("Seed 0 of paper came to nothing: NaN.",))
    for table in (recipes_table(failed), table_1(failed)):
        assert "paper" not in [row[0] for row in table.rows]
        assert table.notes == ("Seed 0 of paper came to nothing: NaN.",)
        assert table.markdown().endswith("Seed 0 of paper came to nothing: NaN.")


def test_markdown__is_a_table_of_equally_many_cells(report: Callable[..., Findings]) -> None:
    lines = recipes_table(report(0.7)).markdown().splitlines()
    assert lines[0] == "Recipes: 16 tokens, 60k-samples each, at 112 x 112, on 2,893 test images"
    assert lines[3].startswith("| --- | ---: |")
    assert len({line.count("|") for line in lines[2:]}) == 1
    assert len(lines) == 2 + 2 + 3
