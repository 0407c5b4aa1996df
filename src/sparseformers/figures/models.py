"""Inputs beside the RoIs and sampling points of one or several models: the papers' Figures 3 and 4."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparseformers.errors import ConfigError
from sparseformers.figures.data import (
    LONGEST_DRAWN,
    RoIPicture,
    TitledImage,
    ViewKind,
    drawn_pixels,
    inside_rois,
    trace_photograph,
)
from sparseformers.figures.panels import draw_last_points, draw_photograph, draw_stage, token_colours
from sparseformers.figures.sheet import check_count, open_sheet
from sparseformers.model.sparseformer import SparseFormer

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class ModelsPicture:
    """A photograph with the RoIs and sampling points of each of several models; raises ValueError for none."""

    image: Tensor  # 3 x H x W in [0, 1]: the photograph as it is drawn
    title: str
    models: Mapping[str, RoIPicture]  # by the model's name, all in the coordinates of ``image``

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("a picture needs at least one model")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """S x N x 4 of each model, in which pictures on one sheet agree."""
        return {name: tuple(of_model.rois.shape) for name, of_model in self.models.items()}


def trace_models(
    models: Mapping[str, SparseFormer],
    photographs: Iterable[TitledImage],
    *,
    view: ViewKind = "whole",
    longest: int = LONGEST_DRAWN,
) -> list[ModelsPicture]:
    """Runs several models on photographs, each on its own view of them, at its own size; all in the photograph's coordinates."""
    pictures = []
    for title, image in photographs:
        drawn = drawn_pixels(image, longest)
        traced = {name: trace_photograph(student, image, drawn, title, view=view) for name, student in models.items()}
        pictures.append(ModelsPicture(drawn, title, traced))
    return pictures


def draw_models(pictures: Sequence[ModelsPicture], *, stages: Sequence[int] | None = None, columns: int | None = None) -> Figure:
    """A row of panels for each picture: the input, then for each model the RoIs at some stages and the last sampling points.

    A token keeps its colour in all panels of its model. A picture is dark and grey where no RoI (or sampling point) is, and where
    it is not given to the model. ``stages`` are 0 for the start, i for after the i-th iteration, -1 for the last; by default the
    first, third and last. Raises ConfigError for no picture or more than 64, a stage that a model does not have, or less than one
    column, and ValueError if the pictures differ in their models, or a model's numbers of stages or tokens.
    """
    check_count(len(pictures))
    shapes = pictures[0].shapes
    if any(picture.shapes != shapes for picture in pictures):
        raise ValueError("the pictures on a sheet must have the same models with the same numbers of stages and tokens")
    shown = {name: choose_stages(shape[0], stages) for name, shape in shapes.items()}
    headings = ["Input"]
    for name, chosen in shown.items():
        headings += [*(f"RoIs, {stage_name(pictures[0].models[name], stage)}" for stage in chosen), "Sampling points, last stage"]
    groups = [(name, len(chosen) + 1) for name, chosen in shown.items()] if len(shown) > 1 else []
    images, titles = [picture.image for picture in pictures], [picture.title for picture in pictures]
    figure, rows = open_sheet(images, titles, headings, columns=columns, groups=groups)
    for picture, panels in zip(pictures, rows, strict=True):
        # Bright is what at least one model was given.
        height, width = picture.image.shape[-2:]
        frames = torch.tensor([of_model.frame for of_model in picture.models.values()])
        first, *others = panels
        draw_photograph(first, picture.image, inside_rois(frames, height=height, width=width))
        places = iter(others)
        for name, of_model in picture.models.items():
            colours = token_colours(of_model.rois.shape[1])
            for stage in shown[name]:
                draw_stage(next(places), of_model, of_model.rois[stage], colours)
            draw_last_points(next(places), of_model, colours)
    return figure


def draw_student(pictures: Sequence[RoIPicture], *, stages: Sequence[int] | None = None, columns: int | None = None) -> Figure:
    """As :func:`draw_models` for one student."""
    of_one = [ModelsPicture(picture.image, picture.title, {"": picture}) for picture in pictures]
    return draw_models(of_one, stages=stages, columns=columns)


ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


def choose_stages(count: int, stages: Sequence[int] | None = None) -> list[int]:
    """Stages to draw, of ``count``, each once: those asked for, or the first, third and last; raises ConfigError for others."""
    wanted = [0, min(2, count - 1), count - 1] if stages is None else list(stages)
    for stage in wanted:
        if not -count <= stage < count:
            problem = f"There is no stage {stage}: the student has {count}."
            raise ConfigError(problem, f"Choose from 0 (the start) to {count - 1} (the last); -1 is the last, too.")
    return list(dict.fromkeys(stage % count for stage in wanted))


def stage_name(picture: RoIPicture, stage: int) -> str:
    """``first stage``, ``last stage``, ``stage 12`` ...; ``the only stage`` where nothing moves, and its own where RoIs split."""
    count = len(picture.rois)
    if picture.attention_map is not None:
        return picture.stage_names[stage]
    if count == 1:
        return "the only stage"
    if stage == count - 1:
        return "last stage"
    return f"{ORDINALS[stage]} stage" if stage < len(ORDINALS) else f"stage {stage + 1}"
