"""``sparseformers evaluate``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sparseformers.cli.output import console_for, embedding_progress, options, print_json, print_whole, say


@dataclass(frozen=True)
class Evaluate:
    """Measure how near a student is to its teacher on a folder of images.

    With class folders in DIR (train/CLASS and test/CLASS, or CLASS), nearest-neighbour and classifier accuracy are measured too.

    With --shifts it is measured where the student loses what it learnt: blurred, noisy, compressed, darker, flatter, cropped and
    small photographs, other image sizes and shapes; and how far its RoIs move there.

    With --zero-shot, the text tower of an OpenCLIP teacher names the classes of the class folders, and student and teacher are
    measured by it; with --captions, images are looked for by captions, and captions by images.

    With --focus it is measured where the RoIs of a student go that can move them: how far, how large they are and how much of
    the image they cover; and with masks or boxes, whether sampling points fall on objects more than on the rest.

    With --dense its maps of features are compared with the teacher's, place by place; and with masks of classes, a segmentation
    that is learnt on the teacher's maps is given the student's.

    Example: sparseformers evaluate runs/first --data photos/validation

    Example: sparseformers evaluate runs/first --data photos/validation --shifts --limit 200

    Example: sparseformers evaluate runs/first --data photos/validation --focus --masks photos/masks

    Example: sparseformers evaluate runs/clip --data photos --zero-shot --templates simple

    Example: sparseformers evaluate runs/clip --data photos --captions photos/captions.jsonl
    """

    run_path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(name="run", metavar="RUN")]
    """A run folder or a model file."""
    data: Path
    """The folder of images."""
    views: int = 0
    """Fixed random crops of each image to measure on (no classes then); 0 takes the central view."""
    shifts: bool = False
    """Measure under changed conditions, beside the teacher itself and the teacher at a lower resolution with as many tokens."""
    focus: bool = False
    """Measure where moving RoIs go; the teacher is not needed for it."""
    dense: bool = False
    """Measure maps of features, beside the teacher itself and the teacher at a lower resolution."""
    masks: Path | None = None
    """With --focus: a folder of masks of the images' objects, at the same relative paths whatever their suffix; what is not zero
    is foreground. With --dense: PNG masks as large as the images, with the number of a class at each
    pixel, 0 for the background, 255 for nothing said."""
    boxes: Path | None = None
    """With --focus: boxes around the objects, in a JSON file of COCO's form; names of images are relative to DIR."""
    zero_shot: bool = False
    """Classify the images of class folders by the names of their classes, with the teacher's own text tower (OpenCLIP)."""
    classnames: Path | None = None
    """With --zero-shot: a file with the classes' names, if the folders' own will not do: lines of FOLDER, a tab and the name;
    one name a line in the order of the sorted folders; or a .json object."""
    templates: str = "openai"
    """With --zero-shot: the sentences that names are put in: openai (80 of them), simple (7), or a file with one a line that
    marks the place of the name by {}."""
    captions: Path | None = None
    """Measure image-text retrieval by the captions in this file: .jsonl with {"image": ..., "caption": ...} on each line, or
    .csv with these two columns; names of images are relative to DIR."""
    limit: int = 0
    """Measure on this many images only, drawn evenly from all; 0 takes all."""
    tokens: Annotated[tuple[int, ...], tyro.conf.UseAppendAction] = ()
    """Latent tokens, if not those that the student was configured with; an elastic student serves several numbers. With --focus
    it may be given several times."""
    teacher: str | None = None
    """Teacher to load, if it is not where it was."""
    batch_size: int = 32
    """Images at a time."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the matrix products."""
    json: bool = False
    """Print the figures as JSON."""

    def run(self) -> None:
        from sparseformers.evaluation import RoIReports, evaluate

        console = console_for(as_json=self.json)
        given = options(self, without=("run_path", "json"))
        report = evaluate(self.run_path, **given, progress=partial(embedding_progress, console))
        if self.json:
            print_json(report.to_dict())
            return
        for table in report.tables(f"{self.run_path} on {self.data}"):
            print_whole(table, console)
        remarks = report.remarks() if isinstance(report, RoIReports) else []
        for line in [*(f"skipped: {line}" for line in report.skipped_images), *remarks]:
            say(console, line)
