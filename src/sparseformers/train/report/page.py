"""The content of a report's page, made of that of the run folder: everything but the markup."""

from __future__ import annotations

import base64
import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from sparseformers.files import cut, printable
from sparseformers.train.callbacks.held_out_record import Moment, ViewCosine, worst_of
from sparseformers.train.report import tables
from sparseformers.train.report.figures import Detail, curves_svg, picture_webp, rois_webp
from sparseformers.train.report.tables import LONGEST, Cell

if TYPE_CHECKING:
    from sparseformers.train.report import RunContent

STATES = {
    "finished": "The training is at its end.",
    "running": "It was still running when this page was made: what follows is as of then.",
    "stopped": "It stopped before its end.",
    "dead": "Its process ended without a word before the training was at its end.",
    "unknown": "Nothing in its folder tells whether it is at its end.",
}
MAP_NOTE = (
    "After {:,} images. The student tells from the glance where its teacher will look, and splits RoIs there; each leaf is drawn "
    "with as many pixels as are read of it."
)


class Tile(NamedTuple):
    """A figure at the top of the page."""

    title: str
    cell: Cell
    remark: str


def page_of(content: RunContent, detail: Detail, *, curves: str | None) -> dict[str, Any]:
    """All that the template fills in, with ``curves`` from :func:`draw_curves`, which are the same for all details.

    A figure or table that is None has its reason in ``missing``, by section.
    """
    sentences = [STATES[content.status.state]]
    if content.reason:
        sentences.append(f"It said: {cut(printable(content.reason), LONGEST)}")
    if (sign := content.status.last_sign) is not None:
        sentences.append(f"Last heard of on {time.strftime('%Y-%m-%d at %H:%M UTC', time.gmtime(sign))}.")
    moments, rois_note = _moments(content)
    drawn, worst = bool(moments and detail.images), worst_of(content.cosines)
    costs, groups = content.costs, content.resolved.get("parameters", {})
    network = content.settings.get("network", content.settings)  # earlier versions had no groups of settings
    resolved = {name: value for name, value in content.resolved.items() if name != "costs"}  # which have a table of their own
    return {
        "title": printable(content.path.absolute().name),
        "teacher": cut(printable(str(network.get("teacher", ""))), LONGEST),
        "state": content.status.state,
        "state_sentence": " ".join(sentences),
        "tiles": _tiles(content),
        "facts": tables.facts(content),
        "curves": curves,
        "measurements": tables.measurements(content) if content.held_out else None,
        "cost": None if costs is None else tables.cost(costs, content.front.get("tokens"), groups),
        "moves_rois": content.moves_rois,
        "rois": _address("image/webp", rois_webp(content.images, moments, detail, content.front)) if drawn else None,
        "rois_note": rois_note,
        "worst": tuple(_worst_view(content, each, detail, place < detail.worst) for place, each in enumerate(worst)),
        "worst_note": _worst_note(content),
        "skipped": tables.skipped(content) if content.skipped else None,
        "settings": tables.settings(content),
        "resolved": tables.plain_table("choice", tables.flattened(resolved)),
        "versions": tables.plain_table("package", tables.flattened(content.versions)),
        "resume": content.status.resume,
        "missing": _missing(content),
    }


def draw_curves(content: RunContent) -> str | None:
    """The curves as a data address; None where nothing was measured."""
    return _address("image/svg+xml", curves_svg(content.steps, content.held_out)) if content.steps or content.held_out else None


def _missing(content: RunContent) -> dict[str, str]:
    measured = bool(content.held_out)
    earlier = "an earlier version made the run, which did not keep {0}" if measured else "the run has not measured yet"
    missing = {}
    if not content.steps and not measured:
        missing["curves"] = "There are no curves: the run has not written down a figure yet."
    if content.costs is None:
        missing["cost"] = "The cost is not known: an earlier version made the run, which did not write it down."
    if content.moves_rois and not content.moments:
        missing["rois"] = f"There are no RoIs: {earlier.format('them')}."
    if not content.cosines:
        missing["worst"] = f"Which images are aligned worst is not known: {earlier.format('the cosines of each')}."
    if not content.skipped:
        missing["skipped"] = "None: every image that was met could be read."
    return missing


def _tiles(content: RunContent) -> tuple[Tile, ...]:
    tiles, held_out, costs = [], content.held_out, content.costs
    if held_out:
        first, last = held_out[0]["centred_cosine"], held_out[-1]["centred_cosine"]
        remark = f"{first:.4f} at the start" if held_out[0]["samples"] == 0 else "on held-out images"
        tiles.append(Tile("held-out centred cosine", tables.number(last, 4), remark))
        plain = f"a constant output has {held_out[-1]['constant_baseline']:.4f}"
        tiles.append(Tile("held-out cosine", tables.number(held_out[-1]["cosine_mean"], 4), plain))
    if costs is not None:
        part = costs.student.multiply_adds / costs.teacher.multiply_adds
        gigas = f"{costs.student.multiply_adds / 1e9:.2f} G of {costs.teacher.multiply_adds / 1e9:.2f} G"
        tokens, patches = tables.number(content.front.get("tokens"), 0), f"of the teacher's {costs.patch_tokens:,}"
        tiles += [Tile("of the teacher's multiply-adds", tables.share(part, 0), gigas), Tile("latent tokens", tokens, patches)]
    return tuple(tiles)


def _moments(content: RunContent) -> tuple[dict[str, Moment], str]:
    """The start, the middle and the end of the training, as far as they were kept, by their titles, and a sentence on them."""
    moments = content.moments
    if not content.moves_rois or not moments:
        return {}, ""
    first, last = moments[0], moments[-1]
    if last.maps is not None:
        return {"": last}, MAP_NOTE.format(last.samples)
    named = [("Start" if first.samples == 0 else "Earliest", first)]
    if len(moments) > 2:
        named.append(("Middle", min(moments[1:-1], key=lambda moment: abs(moment.progress - last.progress / 2))))
    if len(moments) > 1:
        named.append(("End" if last.progress >= 1 else "Newest", last))
    titled = {f"{name}: {moment.samples:,} images": moment for name, moment in named}
    notes = [] if first.samples == 0 else [f"The start was not kept; the earliest is after {first.samples:,} images."]
    if len(named) > 1 and all(torch.equal(moment.rois[:, -1], last.rois[:, -1]) for _, moment in named):
        titled = dict(list(titled.items())[-1:])
        notes.append("The RoIs did not move: they are the same at the start, in the middle and at the end.")
    notes.append("Boxes are RoIs after the last focusing iteration, points those of the newest moment; a token keeps its colour.")
    return titled, " ".join(notes)


def _worst_note(content: RunContent) -> str:
    if not content.cosines:
        return ""
    views, shown = len(content.cosines), len(worst_of(content.cosines))
    several = any(each.view is not None for each in content.cosines)
    note = f"The {shown} of {views:,} {'views of held-out images' if several else 'held-out images'} with the lowest centred "
    note += f"cosine to the teacher after {content.cosines[0].samples:,} images; cosines.jsonl in the folder held_out has all."
    return note if content.worst_pictures else f"{note} Pictures of them are kept at the end of the training."


def _worst_view(content: RunContent, view: ViewCosine, detail: Detail, with_picture: bool) -> dict[str, Any]:
    same = os.path.commonprefix([each.name for each in content.cosines])  # noqa: RUF071  # whole folders of it are left out
    begin = same.rfind("/") + 1
    name = cut(printable(view.name[begin:]), 80) + ("" if view.view is None else f", view {view.view}")
    image = content.worst_pictures.get(view.index) if with_picture else None
    picture = None if image is None else _address("image/webp", picture_webp(image, detail))
    cosines = {"centred_cosine": tables.number(view.centred_cosine, 4), "cosine": tables.number(view.cosine, 4)}
    return {"name": name, "picture": picture, **cosines}


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
