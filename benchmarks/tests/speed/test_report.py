import json
from dataclasses import replace

import pytest

from benchmarks.speed.operators import Operator, Profile
from benchmarks.speed.tables import MOST_OPERATORS, milliseconds, operator_tables, speed_tables, summary
from benchmarks.tests.speed.made import one_batch, report


def test_find__gives_the_fastest_first() -> None:
    found = report(one_batch()).find(1, model="student", precision="fp32")
    assert [row.route.backend for row in found] == ["compile", "eager"]
    assert report(one_batch()).find(16, model="student") == []


def test_ratios__are_medians_over_turns() -> None:
    rows = one_batch()
    found = report(rows)
    assert found.as_teacher_there(rows[0]) == 4.0  # of 4, 4, 5
    assert found.as_best_teacher(rows[0]) == 2.0  # OpenVINO's
    assert found.as_teacher_there(rows[1]) is None  # the teacher was not compiled
    assert found.as_best_teacher(rows[2]) == pytest.approx(10.0)  # of 10, 8, 12
    assert report(rows[:3]).as_best_teacher(rows[0]) is None


def test_to_dict__is_json_with_every_turn() -> None:
    values = json.loads(json.dumps(report(one_batch(), left_out=("bf16, eager: why",)).to_dict()))
    first = values["rows"][0]
    assert (first["model"], first["precision"], first["backend"]) == ("student", "fp32", "eager")
    assert first["seconds"] == [1.0, 2.0, 3.0]
    assert first["multiply_adds"] == 2_000_000_000
    assert first["latency"]["milliseconds_median"] == 2000
    assert first["times_teacher_same_path"] == 4.0
    assert first["floor"] == {"seconds": 0.25, "by": "weights"}
    assert values["machine"]["1"]["multiply_adds_per_second"] == {"fp32": 1000, "int8": 2000}
    assert values["left_out"] == ["bf16, eager: why"]


def test_tables__have_one_for_each_batch_size_and_all_figures() -> None:
    rows = one_batch(1) + one_batch(16)
    tables = speed_tables(report(rows, left_out=("bf16, eager: why",)))
    assert [table.title.split(" (")[0] for table in tables] == ["Batch 1", "Batch 16"]
    assert tables[0].rows[0] == (
        "student, fp32, eager", "2,000", "1,100 to 2,900", "0.5", "250 *", "75%", "3", "1.0000 (0.9900)", "4.00", "2.00",
    )  # fmt: skip
    assert tables[1].rows[0][4] == "500"  # of multiply-adds, so without the star
    assert not tables[0].notes
    assert tables[1].notes[-1] == "left out: bf16, eager: why"
    assert any(note.startswith("* floor of reading the weights") for note in tables[1].notes)
    markdown = tables[1].markdown()
    assert "| teacher, fp32, openvino | 4,000 |" in markdown


def test_notes__tell_of_routes_with_fewer_multiply_adds() -> None:
    rows = one_batch()
    cheaper = [replace(row, multiply_adds=1_500_000_000) if row.route.backend == "compile" else row for row in rows]
    told = "student on compile: folded for its embedding alone, 1.50 G multiply-adds"
    assert told in speed_tables(report([*cheaper, *one_batch(16)]))[-1].notes
    assert not any("folded" in note for note in speed_tables(report(rows))[-1].notes)


def test_notes__say_when_a_cosine_says_nothing() -> None:
    told = "\n".join(speed_tables(report(one_batch(), photographs=False))[-1].notes)
    assert "int8 was calibrated on noise" in told
    assert "int8" not in "\n".join(speed_tables(report(one_batch()))[-1].notes)


def test_operator_tables__tell_the_longest_and_add_up_the_others() -> None:
    assert operator_tables(report(one_batch())) == []
    kernel = "k" * 300
    operators = (Operator(kernel, 2, 0.5), *(Operator(f"operator {number}", 10, 0.05) for number in range(MOST_OPERATORS + 1)))
    traced, *others = one_batch(16)  # its median pass takes two seconds
    table = operator_tables(report([replace(traced, profile=Profile(operators)), *others]))[0]
    assert table.title == "Operators, batch 16"
    assert table.rows[0] == ("student, fp32, eager", "all", "92", "950", "48%")
    assert table.rows[1] == ("student, fp32, eager", f"{'k' * 57}...", "2", "500", "25%")
    assert table.rows[-1] == ("student, fp32, eager", "2 others", "20", "100", "5%")
    assert len(table.rows) == MOST_OPERATORS + 2
    assert table.notes == ()


def test_summary__tells_the_students_best() -> None:
    assert summary(report(one_batch())) == (
        "Fastest, batch 1: student, int8, openvino with 500 ms, 2.0 images/s, 10.0 times the teacher's best."
    )
    assert "teacher, fp32, eager with 8,000 ms" in summary(report(one_batch()[3:4]))


def test_milliseconds__have_three_digits() -> None:
    assert [milliseconds(value) for value in (1.234, 12.34, 123.4, 1234.0)] == ["1.23", "12.3", "123", "1,234"]
