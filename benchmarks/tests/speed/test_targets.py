import pytest

from benchmarks.speed import SpeedConfig
from benchmarks.speed.targets import CPU, judge, settings_for_targets, targets_table
from benchmarks.tests.speed.made import one_batch, report, row


def test_judge__compares_in_the_same_run() -> None:
    verdicts = {each.what: each for each in judge(report(one_batch()), CPU)}
    against_teacher = verdicts["float32 eager against the teacher's float32 eager"]
    assert (against_teacher.goal, against_teacher.figure, against_teacher.told) == ("4.00x", "4.00x", "met")
    assert against_teacher.times == "eager 2,000 against eager 8,000"
    assert against_teacher.floor == "250 (weights)"
    first = verdicts["best float32 path against the first eager version"]
    assert (first.figure, first.met) == ("2.00x", True)
    assert first.times == "compile 1,000 against eager 2,000"
    int8 = verdicts["int8 against the best float32 path"]
    assert (int8.figure, int8.met) == ("2.50x", True)  # of 2.5, 2, 3
    assert (verdicts["cosine of int8"].figure, verdicts["cosine of int8"].told) == ("0.9800", "missed")


def test_judge__says_what_is_not_measured() -> None:
    verdicts = {each.what: each for each in judge(report(one_batch(), photographs=False), CPU)}
    assert verdicts["bf16 against the best float32 path"].told == "not measured: see what is left out"
    assert verdicts["bf16 against the best float32 path"].figure == ""
    assert verdicts["cosine of int8"].met is None
    assert "needs a bootstrapped model" in verdicts["cosine of int8"].told
    assert "share of the float32 matrix-product rate" not in verdicts  # which has no goal at batch 1


def test_judge__misses_what_is_too_slow() -> None:
    slow = [row("student", "fp32", "eager", 1.0, 1.0, 1.0, batch=16), row("teacher", "fp32", "eager", 4.4, 4.4, 4.4, batch=16)]
    verdicts = judge(report(slow), CPU)
    assert [each.told for each in verdicts if each.met is not None] == ["missed", "missed", "missed"]
    table = targets_table(report(slow), verdicts)
    assert table.rows[0] == (
        "float32 eager against the teacher's float32 eager", "16", "4.50x", "4.40x", "missed",
        "eager 1,000 against eager 4,400", "500 (multiply-adds)",
    )  # fmt: skip
    assert "| share of the float32 matrix-product rate | 16 | 90.0% | 75.0% | missed |" in table.markdown()


def test_settings_for_targets__are_what_the_targets_are_about() -> None:
    settings = settings_for_targets(SpeedConfig(turns=7))
    assert settings.models == ("student", "teacher")
    assert settings.batch == (1, 16)
    assert settings.precision == ("fp32", "bf16", "int8")
    assert settings.turns == 7


def test_judge__of_a_packed_student__compares_with_the_teacher_as_it_is() -> None:
    rows = [
        row("student", "fp32", "eager", 3.0, 3.0, 3.0), row("student", "fp32", "packed", 2.0, 2.0, 2.0),
        row("teacher", "fp32", "eager", 8.4, 8.4, 8.4), row("teacher", "fp32", "packed", 7.0, 7.0, 7.0),
    ]  # fmt: skip
    verdicts = {each.what: each for each in judge(report(rows), CPU)}
    packed = verdicts["the same, the student folded and packed"]
    assert (packed.figure, packed.told) == ("4.20x", "met")
    assert packed.times == "packed 2,000 against eager 8,400"
    plain = verdicts["float32 eager against the teacher's float32 eager"]
    assert (plain.figure, plain.told) == ("2.80x", "missed")


def test_goals__are_those_of_the_issue() -> None:
    assert [dict(target.goals) for target in CPU] == [
        {1: 4.0, 16: 4.5}, {1: 4.0, 16: 4.5}, {1: 1.5, 16: 1.1}, {1: 1.5, 16: 2.0}, {1: 0.999, 16: 0.999}, {1: 1.8, 16: 2.5},
        {1: 0.99, 16: 0.99}, {16: pytest.approx(0.9)},
    ]  # fmt: skip
