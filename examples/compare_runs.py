"""On which images does one student beat another, and where did it look there? Two runs from the same teacher, image by image.

Prints the centred cosine to the teacher and how often a run says the teacher's class, for all images and for quarters of them:
by how far the first run's RoIs moved and, where boxes are given (see examples/small_objects.py), by how small the object
is. Draws the images that the first run wins by most, with its RoIs.

    python examples/compare_runs.py runs/moving runs/cells --data small/test --boxes small/boxes.json --out won.png
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
import tyro
from rich.progress import track
from torch import Tensor

from sparseformers.data import evaluation_batches, find_images, images_on
from sparseformers.evaluation import embed
from sparseformers.figures import draw_student, save_figure, trace_rois
from sparseformers.modes import autocast_dtype, resolve_precision
from sparseformers.opening import Pair, open_pair
from sparseformers.rois import centre_and_size


@dataclass(frozen=True)
class Settings:
    """Which runs, on which images."""

    first: Annotated[Path, tyro.conf.Positional]
    """A run folder."""
    second: Annotated[Path, tyro.conf.Positional]
    """Another one, of the same teacher and image size."""
    data: Path
    """A folder of images."""
    boxes: Path | None = None
    """Where the objects are, a file in COCO's form with names relative to its own folder."""
    out: Path | None = None
    """A figure of the images that the first run wins by most."""
    drawn: int = 8
    """How many."""


class Judged(NamedTuple):
    """What one run says of all images."""

    centred: Tensor
    """M, centred cosine to the teacher."""
    agrees: Tensor
    """M, 1.0 where it says the teacher's class; not a number without a classifier."""


def judge(pair: Pair, paths: list[Path], title: str) -> Judged:
    """Runs one student and its teacher over the images."""
    dtype = autocast_dtype(resolve_precision("auto", pair.device))
    batches = evaluation_batches(paths, pair.teacher.preprocessing, batch_size=32, workers=1)
    seen = embed(
        pair.student, pair.teacher, track(batches, title, total=-(-len(paths) // 32)), device=pair.device, autocast=dtype
    )
    mean = seen.teacher.mean(dim=0)
    agrees = torch.full((len(seen.teacher),), float("nan"))
    if seen.student_logits is not None and seen.teacher_logits is not None:
        agrees = (seen.student_logits.argmax(dim=1) == seen.teacher_logits.argmax(dim=1)).float()
    return Judged(F.cosine_similarity(seen.student - mean, seen.teacher - mean), agrees)


def movement(pair: Pair, paths: list[Path]) -> Tensor:
    """How far the run's RoIs moved in each image, the mean of its tokens, in sides of a cell: M."""
    moved = []
    for batch in track(evaluation_batches(paths, pair.teacher.preprocessing, batch_size=32, workers=1), "RoIs"):
        with torch.inference_mode():
            rois = pair.student(images_on(pair.device, batch.images)).rois
        (start, size), (end, _) = centre_and_size(rois[:, 0]), centre_and_size(rois[:, -1])
        moved.append(((end - start) / size).norm(dim=-1).mean(dim=-1).cpu())
    return torch.cat(moved)


def object_shares(boxes: Path, paths: list[Path]) -> Tensor:
    """The share of each image's area that its object takes: M."""
    content = json.loads(boxes.read_text(encoding="utf-8"))
    names = {image["id"]: (boxes.parent / image["file_name"], image["width"] * image["height"]) for image in content["images"]}
    share = {names[item["image_id"]][0].absolute(): item["area"] / names[item["image_id"]][1] for item in content["annotations"]}
    return torch.tensor([share[path.absolute()] for path in paths])


def print_quarters(by: str, values: Tensor, runs: Mapping[str, Judged]) -> None:
    """A line for each quarter of the images, in the order of ``values``."""
    for quarter, chosen in enumerate(values.argsort().tensor_split(4)):
        low, high = values[chosen[0]], values[chosen[-1]]
        figures = "   ".join(
            f"{name} {judged.centred[chosen].mean():.4f} {100 * judged.agrees[chosen].mean():.1f}%"
            for name, judged in runs.items()
        )
        print(f"  {by}, quarter {quarter + 1} ({low:.3f} to {high:.3f}):   {figures}")


def draw(pair: Pair, paths: list[Path], gain: Tensor, settings: Settings) -> None:
    """The images that the first run wins by most, with its RoIs and sampling points."""
    chosen = gain.argsort(descending=True)[: settings.drawn].tolist()
    views = next(
        iter(evaluation_batches([paths[i] for i in chosen], pair.teacher.preprocessing, batch_size=len(chosen), workers=0))
    )
    titles = [f"{paths[i].parent.name} ({gain[i]:+.2f})" for i in chosen]
    save_figure(draw_student(trace_rois(pair.student, views.images, titles)), settings.out or Path("won.png"))


def main(settings: Settings) -> None:
    """Compares the runs."""
    pairs = {"first": open_pair(settings.first), "second": open_pair(settings.second)}
    paths = find_images([settings.data])
    runs = {name: judge(pair, paths, name) for name, pair in pairs.items()}
    for name, judged in runs.items():
        print(f"{name}: centred cosine {judged.centred.mean():.4f}, says the teacher's class {100 * judged.agrees.mean():.1f}%")
    moved = movement(pairs["first"], paths)
    print(f"RoIs of the first moved by {moved.mean():.3f} of a cell's side")
    print_quarters("RoIs moved", moved, runs)
    if settings.boxes is not None:
        print_quarters("the object's share", object_shares(settings.boxes, paths), runs)
    gain = runs["first"].centred - runs["second"].centred
    print(f"the first is nearer to the teacher on {100 * (gain > 0).float().mean():.1f}% of the images")
    if settings.out is not None:
        draw(pairs["first"], paths, gain, settings)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
