import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from sparseformers.errors import ConfigError
from sparseformers.settings import Above, AtLeast, Between, check_bounds, from_dict, to_dict, with_words
from tests.refusals import refused


@dataclass(frozen=True, kw_only=True)
class Inner:
    points: int = 3
    scale: float = 0.5

    def __post_init__(self) -> None:
        if self.points < 1:
            raise ConfigError(f"There must be a point, not {self.points}.", "Use 16.")


@dataclass(frozen=True, kw_only=True)
class Outer:
    tokens: int
    name: str = "outer"
    mode: Literal["fast", "slow"] = "fast"
    flag: bool = False
    limit: int | float | None = None
    folder: Path | None = None
    size: tuple[int, int] = (2, 3)
    folders: tuple[Path, ...] = ()
    inner: Inner = field(default_factory=Inner)
    other: Inner | None = None


def failure(values: object) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        from_dict(Outer, values, where="recipe")
    return caught.value


def test_round_trip_through_json_by_plain_values_only() -> None:
    settings = Outer(
        tokens=48, limit=0.5, folder=Path("a/b"), folders=(Path("c"), Path("d")), inner=Inner(points=9), other=Inner(scale=2.0)
    )
    assert from_dict(Outer, json.loads(json.dumps(to_dict(settings)))) == settings
    plain = {"tokens": 1, "name": "outer", "mode": "fast", "flag": False, "limit": None, "folder": "a", "size": [2, 3]}
    nested = {"folders": [], "inner": {"points": 3, "scale": 0.5}, "other": None}
    assert to_dict(Outer(tokens=1, folder=Path("a"))) == plain | nested


def test_missing_keys_take_their_defaults_and_an_integer_is_a_float() -> None:
    settings = from_dict(Outer, {"tokens": 5, "inner": {"scale": 2}})
    assert settings == Outer(tokens=5, inner=Inner(scale=2.0))
    assert isinstance(settings.inner.scale, float)


@pytest.mark.parametrize(
    ("values", "problem", "remedy"),
    [
        ([1, 2], "The recipe is not a mapping of names to values.", "Give a JSON object."),
        ({}, "The recipe does not fit: missing key 'tokens'.", "Known keys are: "),
        ({"tokens": 5, "zzz": 4}, "The recipe does not fit: unknown key 'zzz'.", "Known keys are: tokens, name, mode"),
        (
            {"tokens": 5, "token": 4},
            "The recipe does not fit: unknown key 'token'. Did you mean 'tokens'?",
            "Known keys are: tokens",
        ),
        ({"tokens": 5, "inner": {"points": 0}}, "There must be a point, not 0.", "Use 16."),
    ],
)
def test_what_does_not_fit__is_a_sentence_with_a_remedy(values: object, problem: str, remedy: str) -> None:
    error = failure(values)
    assert error.problem == problem
    assert error.remedy.startswith(remedy)


def test_all_faults_of_all_levels_come_in_one_message_before_values_out_of_range() -> None:
    inner = {"points": "3", "scael": 1}
    problem = failure({"naem": "x", "mode": "medium", "flag": 1, "inner": inner, "other": {"points": 0, "zzz": 4}}).problem
    for fault in (
        "missing key 'tokens'",
        "unknown key 'naem'. Did you mean 'name'?",
        "key 'mode': 'medium' is none of 'fast', 'slow'",
        "key 'flag': expected bool but got 1",
        "key 'inner.points': expected int but got '3'",
        "unknown key 'inner.scael'. Did you mean 'scale'?",
        "unknown key 'other.zzz'. Known there are: points, scale.",
    ):
        assert fault in problem


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"tokens": "48"}, "key 'tokens': expected int but got '48'"),
        ({"tokens": True}, "key 'tokens': expected int but got True"),
        ({"tokens": 1.5}, "key 'tokens': expected int but got 1.5"),
        ({"tokens": None}, "key 'tokens': expected int but got None"),
        ({"name": 3}, "key 'name': expected str but got 3"),
        ({"limit": "x"}, "key 'limit': expected int but got 'x' or expected float but got 'x'"),
        ({"size": [1]}, "key 'size': expected 2 values but got 1"),
        ({"size": 7}, "key 'size': expected a list but got 7"),
        ({"size": [1, "2"]}, "key 'size': expected int but got '2'"),
        ({"folder": 7}, "key 'folder': expected Path but got 7"),
        ({"inner": 7}, "key 'inner': expected a mapping of names to values but got 7"),
        ({"inner": None}, "key 'inner': expected a mapping of names to values but got None"),
        ({"inner": {"scale": True}}, "key 'inner.scale': expected float but got True"),
    ],
)
def test_wrong_types(values: dict[str, object], fault: str) -> None:
    assert fault in failure({"tokens": 5, **values}).problem


@dataclass(frozen=True, kw_only=True)
class Circle:
    kind: Literal["circle"] = "circle"
    radius: int = 1


@dataclass(frozen=True, kw_only=True)
class Box:
    kind: Literal["box", "crate"] = "box"
    width: int = 1
    height: int = 1


@dataclass(frozen=True, kw_only=True)
class Drawing:
    figure: Circle | Box
    frame: Box | Circle | None = None


@pytest.mark.parametrize(
    "drawing", [Drawing(figure=Circle(radius=3)), Drawing(figure=Box(kind="crate", width=2), frame=Circle())]
)
def test_one_of_several_dataclasses_survives_json(drawing: Drawing) -> None:
    assert from_dict(Drawing, json.loads(json.dumps(to_dict(drawing)))) == drawing


def test_without_the_key_that_tells_them_apart_it_is_the_first_of_them() -> None:
    drawing = from_dict(Drawing, {"figure": {"radius": 2}, "frame": {"width": 5}})
    assert drawing == Drawing(figure=Circle(radius=2), frame=Box(width=5))


def test_members_that_do_not_fit() -> None:
    for figure, fault in (
        *(({"kind": kind}, f"'figure.kind': {kind!r} is none of 'circle', 'box', 'crate'") for kind in ("boks", 3, None)),
        (7, "key 'figure': expected a mapping of names to values but got 7"),
        ({"kind": "box", "widht": 3, "radius": 2}, "unknown key 'figure.widht'. Did you mean 'width'?"),
        ({"kind": "box", "widht": 3, "radius": 2}, "unknown key 'figure.radius'. Known there are: kind, width, height"),
    ):
        with refused(ConfigError, fault):
            from_dict(Drawing, {"figure": figure}, where="drawing")


@dataclass(frozen=True, kw_only=True)
class Bounded:
    count: Annotated[int | None, AtLeast(1)] = None
    rate: Annotated[float, Above(0)] = 1.0
    share: Annotated[float, Between(0, 1, "(]", example=0.9)] = 1.0
    below: Annotated[float, Between(0, math.inf, "[)")] = 0.0
    sides: Annotated[tuple[int, ...], AtLeast(2)] = ()

    def __post_init__(self) -> None:
        check_bounds(self)


@pytest.mark.parametrize(
    ("values", "problem", "remedy"),
    [
        ({"count": 0}, "--count must be at least 1, not 0.", "Use 1 or more."),
        ({"rate": 0.0}, "--rate must be above 0, not 0.0.", "Use a positive number."),
        ({"rate": math.nan}, "--rate must be above 0, not nan.", "Use a positive number."),
        ({"share": 0.0}, "--share must be in (0, 1], not 0.0.", "Use 0.9, for example."),
        ({"below": math.inf}, "--below must be in [0, inf), not inf.", "Choose a value in that range."),
        ({"sides": (4, 1)}, "--sides must be at least 2, not 1.", "Use 2 or more."),
    ],
)
def test_check_bounds__beside_the_fields(values: dict[str, Any], problem: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Bounded(**values)
    assert (caught.value.problem, caught.value.remedy) == (problem, remedy)


def test_check_bounds__values_at_the_ends_and_none_pass() -> None:
    assert Bounded(count=1, share=1.0, below=0.0, sides=(2,)).count == 1
    assert Bounded(count=None).count is None


def test_with_words__what_is_given_counts_more_than_the_settings() -> None:
    settings = Outer(tokens=1, name="mine")
    changed = with_words(Outer, settings, {"tokens": 2, "folders": "one", "folder": "there"}, where="call")
    assert changed == Outer(tokens=2, name="mine", folder=Path("there"), folders=(Path("one"),))
    assert with_words(Outer, None, {"tokens": 3}, where="call") == Outer(tokens=3)
    with pytest.raises(ConfigError, match=r"The call does not fit: unknown key 'tokns'\. Did you mean 'tokens'"):
        with_words(Outer, settings, {"tokns": 2}, where="call")
