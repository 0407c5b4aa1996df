import pytest

from sparseformers.errors import ConfigError
from sparseformers.train.lengths import Budget, Interval, Place
from tests.refusals import refused


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("10m", 600, "seconds"),
        ("10 minutes", 600, "seconds"),
        ("30s", 30, "seconds"),
        ("2h", 7200, "seconds"),
        ("1.5-hours", 5400, "seconds"),
        ("500steps", 500, "steps"),
        ("1 Step", 1, "steps"),
        ("100000samples", 100000, "samples"),
        ("64 images", 64, "samples"),
        ("1epoch", 1, "epochs"),
        (".5epochs", 0.5, "epochs"),
    ],
)
def test_parse__all_spellings(text: str, amount: float, unit: str) -> None:
    assert Interval.parse(text) == Interval(amount, unit)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "problem", "remedy"),
    [
        ("10", "--checkpoint-every 10 cannot be understood.", "Write 10m, 500steps or 1epoch, for example."),
        ("", "cannot be understood", "Write 10m"),
        ("m", "cannot be understood", "Write 10m"),
        ("-5m", "cannot be understood", "Write 10m"),
        ("5stps", "cannot be understood", "Did you mean 'steps'"),
        ("0s", "is no length", "more than 0"),
        ("1.5steps", "no whole number of steps", "Use 2steps"),
    ],
)
def test_parse__anything_else_is_refused(text: str, problem: str, remedy: str) -> None:
    with refused(ConfigError, problem, remedy):
        Interval.parse(text)


def ends(text: str, *, resumed_at: int, total: int = 48) -> list[int]:
    """The places where an interval ends in steps of 4 images, an epoch being 10, from a checkpoint at ``resumed_at`` on."""
    interval, before, found = Interval.parse(text), Place(resumed_at, resumed_at / 2), []
    for samples in range(resumed_at + 4, total + 1, 4):
        now = Place(samples, samples / 2)
        if interval.has_passed(before, now, batch_size=4, images=10):
            found.append(samples)
            before = now
    return found


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("1step", [*range(4, 49, 4)]),
        ("3steps", [12, 24, 36, 48]),
        ("24samples", [24, 48]),
        ("2epochs", [20, 40]),
        ("1epoch", [12, 20, 32, 40]),
        ("8s", [16, 32, 48]),
    ],
)
def test_has_passed__at_every_end_counted_from_the_beginning_of_the_training(text: str, places: list[int]) -> None:
    assert ends(text, resumed_at=0) == places
    assert ends(text, resumed_at=16) == [place for place in places if place > 16]


@pytest.mark.parametrize(("text", "seconds"), [("2m", 120.0), ("3steps", 6.0), ("20samples", 10.0), ("1epoch", 50.0)])
def test_in_seconds__by_the_time_of_a_step(text: str, seconds: float) -> None:
    assert Interval.parse(text).in_seconds(step=2.0, batch_size=4, images=100) == seconds


def test_budget__progress_is_of_samples_or_of_the_clock() -> None:
    assert Budget(samples=100, seconds=None).progress(samples=25, seconds=9e9) == 0.25
    assert Budget(samples=None, seconds=50.0).progress(samples=10**9, seconds=25.0) == 0.5
    assert Budget(samples=None, seconds=50.0).progress(samples=0, seconds=60.0) == 1.0
