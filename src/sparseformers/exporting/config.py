"""All settings of an export; the command line and the documentation come from here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from sparseformers.errors import ConfigError
from sparseformers.settings import Above, AtLeast, check_bounds

Format = Literal["onnx", "openvino", "torch-export", "safetensors"]
Precision = Literal["fp32", "bf16", "int8"]

TOLERANCES: Mapping[Precision, float] = {"fp32": 1e-3, "bf16": 0.045, "int8": 0.3}
"""Greatest error of an embedding relative to its length, unless told otherwise. An error e that is no mere change of length
costs a cosine of about e squared over 2: 0.045 is a cosine of 0.999."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Kind of file to write, and how it is checked."""

    format: Format
    """onnx: one .onnx file. openvino: a .xml file and the .bin file of its weights, which stay together. torch-export: one .pt2
    file. safetensors: the weights for sparseformers.load, which needs this package."""
    output: Literal["embedding", "dense"] = "embedding"
    """embedding: one vector an image. dense: the map of features on the teacher's grid, of a student trained with --dense."""
    precision: Precision = "fp32"
    """fp32; bf16 (openvino, torch-export, safetensors); int8, calibrated on images (onnx, openvino)."""
    batch: Literal["dynamic"] | int = "dynamic"
    """Images at a time: any number, or only N."""
    size: str = "dynamic"
    """Height and width of the images: any, or only HxW, such as 224x224."""
    with_preprocessing: bool = False
    """The file takes bytes, B x H x W x 3, and resizes, crops and normalises them itself. Without it: floats, B x 3 x H x W in
    [0, 1], resized and cropped already (normalised they are inside in any case)."""
    tokens: Annotated[int | None, AtLeast(1)] = None
    """Latent tokens, if not those that the student was configured with; an elastic student serves several numbers."""
    data: tuple[Path, ...] = ()
    """Images, or folders of them, to check the file on, and for int8 to calibrate it on; a run knows those that it was trained
    on."""
    images: Annotated[int, AtLeast(1)] = 64
    """Number of them that the file is checked on."""
    calibration_images: Annotated[int, AtLeast(1)] = 128
    """For int8: how many others it is calibrated on."""
    tolerance: Annotated[float | None, Above(0)] = None
    """Greatest error of an embedding, relative to its length, that the file may have against PyTorch in float32; by default 0.001
    for fp32, 0.045 for bf16 and 0.3 for int8 (a cosine of about 0.999 and 0.95). A file beyond it is not put in place."""

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.batch != "dynamic" and self.batch < 1:
            raise ConfigError(f"--batch must be at least 1, not {self.batch}.", "Use 1 or more.")
        if self.size != "dynamic" and (self.height_and_width is None):
            raise ConfigError(f"--size is 'dynamic' or HxW in pixels, not '{self.size}'.", "Use 224x224, for example.")
        if self.height_and_width is not None and not self.with_preprocessing:
            from sparseformers.model.sparseformer import SMALLEST_SIDE  # imports PyTorch, which the command's help does not need

            if min(self.height_and_width) < SMALLEST_SIDE:
                problem = f"A student takes images from {SMALLEST_SIDE} pixels a side up, not {self.size}."
                raise ConfigError(problem, "Use a larger --size.")

    @property
    def height_and_width(self) -> tuple[int, int] | None:
        """The only size that the file takes; None for any."""
        match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", self.size)
        return None if match is None else (int(match[1]), int(match[2]))

    @property
    def allowed_error(self) -> float:
        return TOLERANCES[self.precision] if self.tolerance is None else self.tolerance
