"""What maps of features are good for: a segmentation that is learnt on the teacher's maps and given others.

Legend: M images, D width, h x w places, K classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sparseformers.config import PreprocessingConfig
from sparseformers.data import SkippedImages, UnreadableImageError
from sparseformers.data.foregrounds import MaskFolder
from sparseformers.data.images import decode
from sparseformers.data.transforms import evaluation_view
from sparseformers.errors import DataError

IGNORED = 255  # the value of a mask where nothing is said (as in PASCAL VOC)
STEPS, BATCH, RATE, DECAY = 500, 4096, 1e-2, 1e-4  # of the linear head's training
FEWEST = 4  # images with masks
REMEMBERED = 20_000  # places that nearest ones are looked for among
AT_ONCE = 2_048  # places that are compared with these together


@dataclass(frozen=True)
class ProbeFigures:
    """Mean intersection over union, over the classes that there are, of two segmentations; in [0, 1]."""

    linear: float  # by a linear head
    nearest: float  # by the class of the place that is nearest by its features


class ClassMasks(MaskFolder):
    """Masks with the number of a class at each pixel, 0 for the background, 255 for nothing said; named as their images are.

    Raises DataError as the other, and where not one of the first few masks can be read.
    """

    def __init__(self, paths: Sequence[Path], data: Path, folder: Path) -> None:
        super().__init__(paths, data, folder)
        for path in [mask for mask in self.masks if mask is not None][:FEWEST]:
            try:
                decode(path, path, convert=_one_number)
                return
            except UnreadableImageError as error:
                reason = error.reason
        raise DataError(f"The mask '{path}' cannot be read: {reason}.", "Write masks as PNG, with one channel of 8 bits.")

    def classes(self, index: int, preprocessing: PreprocessingConfig, grid: tuple[int, int]) -> Tensor | None:
        """The class in the middle of each place of the network's view, h x w int64; None for an image without a mask.

        Raises UnreadableImageError for a file that cannot be read, or is not of one number a pixel.
        """
        path = self.masks[index]
        if path is None:
            return None
        view = evaluation_view(dataclasses.replace(preprocessing, interpolation="nearest"))
        seen = view.pixels(decode(path, path, convert=_one_number))[:1]
        return F.interpolate(seen[None].float(), grid, mode="nearest-exact")[0, 0].long()


def _one_number(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    numbers = values.astype(np.uint8)
    if values.ndim != 2 or image.format == "JPEG" or (numbers != values).any():
        raise ValueError("a mask of classes has one whole number from 0 to 255 for each pixel, and is no JPEG")
    return Image.fromarray(numbers)


class Segmentation:
    """Gathers maps of annotated images; every other image is learnt from, the rest is judged."""

    def __init__(self, masks: ClassMasks, grid: tuple[int, int], preprocessing: PreprocessingConfig) -> None:
        self.masks, self.grid, self.preprocessing = masks, grid, preprocessing
        self.faults: list[UnreadableImageError] = []
        self.classes: list[Tensor] = []  # h·w each
        self.maps: dict[str, list[Tensor]] = {}  # h·w x D float16 each, by network

    @property
    def annotated(self) -> int:
        return len(self.classes)

    def add(self, indices: Sequence[int], maps: Mapping[str, Tensor]) -> None:
        """Takes in centred maps B x D x h x w of a batch, by network."""
        for row, index in enumerate(indices):
            try:
                classes = self.masks.classes(index, self.preprocessing, self.grid)
            except UnreadableImageError as error:
                self.faults.append(error)
                continue
            if classes is None:
                continue
            self.classes.append(classes.flatten())
            for name, of_batch in maps.items():
                self.maps.setdefault(name, []).append(of_batch[row].flatten(1).mT.half())

    def judge(self, skipped: SkippedImages, teacher: str = "teacher") -> dict[str, ProbeFigures]:
        """The figures of each network's maps; notes masks that could not be read. Raises DataError for too few images."""
        for error in self.faults:
            skipped.add(error.path, error.reason)
        if len(self.classes) < FEWEST:
            unread = f" ({len(self.faults)} more cannot be read)" if self.faults else ""
            problem = f"{len(self.classes)} masks{unread} are too few to learn a segmentation from and to judge it."
            raise DataError(problem, f"Give masks of {FEWEST} images or more, better of hundreds.")
        wanted = torch.cat(self.classes[1::2])
        learnt_from, classes = torch.cat(self.maps[teacher][::2]).float(), torch.cat(self.classes[::2])
        known = classes != IGNORED
        if not known.any() or not (wanted != IGNORED).any():
            raise DataError("The masks say nothing in the part of the images that is seen.", "0 is background, 255 nothing said.")
        learnt_from, classes = learnt_from[known], classes[known]
        weight, bias = linear_head(learnt_from, classes)
        step = -(-len(classes) // REMEMBERED)
        memory, of_memory = F.normalize(learnt_from[::step], dim=1), classes[::step]
        figures = {}
        for name, maps in self.maps.items():
            places = torch.cat(maps[1::2]).float()
            by_head = (places @ weight.T + bias).argmax(dim=1)
            near = [(part @ memory.T).argmax(dim=1) for part in places.split(AT_ONCE)]
            figures[name] = ProbeFigures(mean_iou(by_head, wanted), mean_iou(of_memory[torch.cat(near)], wanted))
        return figures


def linear_head(features: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """A linear classifier (weight K x D, bias K) of features, rows x D, learnt by cross-entropy; the same for the same rows.

    Channels are brought to mean 0 and variance 1 first, or those of large variance would be all that few images teach.
    """
    count, mean, scale = int(classes.max()) + 1, features.mean(dim=0), features.std(dim=0).clamp_min(1e-6)
    features = (features - mean) / scale
    weight = torch.zeros(count, features.shape[1], requires_grad=True)
    bias = torch.zeros(count, requires_grad=True)
    optimiser = torch.optim.AdamW([weight, bias], lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    generator = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        for _ in range(STEPS):
            rows = torch.randint(len(features), (min(BATCH, len(features)),), generator=generator)
            F.cross_entropy(features[rows] @ weight.T + bias, classes[rows]).backward()
            optimiser.step()
            optimiser.zero_grad()
            schedule.step()
    weight = (weight / scale).detach()
    return weight, bias.detach() - weight @ mean


def mean_iou(found: Tensor, wanted: Tensor) -> float:
    """Mean over the classes in ``wanted`` of intersection over union, in [0, 1]; where that is ``IGNORED``, nothing counts."""
    told = wanted != IGNORED
    found, wanted = found[told], wanted[told]
    ious = []
    for each in wanted.unique():
        ours, theirs = found == each, wanted == each
        ious.append((ours & theirs).sum() / (ours | theirs).sum())
    return torch.stack(ious).float().mean().item()
