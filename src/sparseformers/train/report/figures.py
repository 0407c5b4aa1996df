"""The figures of a report, as the bytes of pictures."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from sparseformers.config import MixedResolutionConfig
from sparseformers.data import from_bytes
from sparseformers.files import cut, printable
from sparseformers.settings import from_dict
from sparseformers.train.callbacks.held_out_record import Moment, Picture, small
from sparseformers.train.report.tables import thinned

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sparseformers.figures import RoIPicture

MOST_RECORDS = 1000  # lines of the metrics of a kind that a curve is drawn through
LONGEST_TITLE = 60  # letters of an image's title
GREY = "#767b86"  # of text in drawings without a background: legible on a light page and on a dark one


@dataclass(frozen=True)
class Detail:
    """The number of a report's pictures, and their quality."""

    images: int  # whose RoIs are drawn
    dots_per_inch: int  # of these drawings
    worst: int  # pictures of the images that ended farthest from the teacher
    side: int  # longest one of these, in pixels
    quality: int  # of the compression, in [0, 100]


def curves_svg(steps: Sequence[Mapping[str, Any]], held_out: Sequence[Mapping[str, Any]]) -> bytes:
    """Loss and held-out centred cosine over the images seen; the same records give the same bytes."""
    import matplotlib as mpl

    from sparseformers.figures import curves_figure

    figure = curves_figure([*thinned(steps, MOST_RECORDS), *thinned(held_out, MOST_RECORDS)])
    target = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "sparseformers", "svg.fonttype": "path"}):
        figure.savefig(target, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return target.getvalue()


def rois_webp(images: Sequence[Picture], moments: Mapping[str, Moment], detail: Detail, front: Mapping[str, Any]) -> bytes:
    """A row for each image, its RoIs at each moment and the last points; of a ``front`` with a map as ``draw_map`` has it."""
    from sparseformers.figures import MapPicture, RoIPicture, draw_map

    images, last = images[: detail.images], list(moments.values())[-1]
    rois = torch.stack([moment.rois[:, -1] for moment in moments.values()], dim=1)  # B x T x N x 4
    pictures = [RoIPicture(from_bytes(image), rois[at], (last.points[at],), title) for at, (title, image) in enumerate(images)]
    if last.maps is None:
        sheet = _draw_sheet(pictures, ["Held-out image", *moments, "Sampling points"])
    else:
        config = from_dict(MixedResolutionConfig, front, where="configuration of the front")
        rows = zip(pictures, *last.maps, strict=False)
        sheet = draw_map([MapPicture(replace(row, attention_map=own), attended, config) for row, own, attended in rows])
    target = io.BytesIO()
    sheet.savefig(target, format="webp", dpi=detail.dots_per_inch, pil_kwargs={"quality": detail.quality, "method": 2})
    return target.getvalue()


def picture_webp(image: Tensor, detail: Detail) -> bytes:
    """A small version of a picture 3 x H x W of bytes."""
    target = io.BytesIO()
    pixels = small(image, detail.side).permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(pixels).save(target, format="WEBP", quality=detail.quality, method=2)
    return target.getvalue()


def _draw_sheet(pictures: Sequence[RoIPicture], titles: Sequence[str]) -> Figure:
    """Like the sheets of ``sparseformers visualize``, with moments of the training in the place of stages."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from sparseformers.figures.panels import draw_last_points, draw_photograph, draw_stage, token_colours
    from sparseformers.figures.sheet import lay_out, write

    sizes = [(float(picture.image.shape[2]), float(picture.image.shape[1])) for picture in pictures]
    sheet = lay_out(sizes, panels=len(titles), columns=1)
    figure = Figure(figsize=(sheet.width, sheet.height), facecolor="none")
    FigureCanvasAgg(figure)
    for place, title in zip(sheet.column_titles[0], titles, strict=True):
        write(figure, place.left + place.width / 2, place, title, size=11, colour=GREY, align="center")
    for place, picture in zip(sheet.row_titles, pictures, strict=True):
        write(figure, place.left, place, cut(printable(picture.title), LONGEST_TITLE), size=9.5, colour=GREY, align="left")
    colours = token_colours(pictures[0].rois.shape[1])
    for picture, places in zip(pictures, sheet.panels, strict=True):
        panels = [figure.add_axes(place) for place in places]
        draw_photograph(panels[0], picture.image)
        for axes, rois in zip(panels[1:-1], picture.rois, strict=True):
            draw_stage(axes, picture, rois, colours)
        draw_last_points(panels[-1], picture, colours)
    return figure
