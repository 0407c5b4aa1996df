"""What to plan: a training as ``bootstrap`` would be told it, and the size that it is to have."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

from sparseformers.errors import ConfigError
from sparseformers.settings import AtLeast
from sparseformers.train.settings import BootstrapConfig, DataSettings, OptimisationSettings, Sources


@dataclass(frozen=True, kw_only=True)
class _PlannedData(DataSettings):
    data: Sources = ()
    """Images, as for bootstrap, to measure the reading of; without them steps are timed on random images and reading is not."""


@dataclass(frozen=True, kw_only=True)
class _PlannedOptimisation(OptimisationSettings):
    batch_size: Annotated[int, AtLeast(1)] = 32
    """Images per step on each device; the --batch-size of bootstrap counts those of all devices together."""


@dataclass(frozen=True, kw_only=True)
class PlanConfig(BootstrapConfig):
    """The settings of ``bootstrap``; those that change neither cost nor time are taken, too."""

    needs_data: ClassVar[bool] = False
    data: _PlannedData = _PlannedData()
    optimisation: _PlannedOptimisation = _PlannedOptimisation()


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large a training is to be planned."""

    images: float | None = None
    """Different images to learn from, such as 1.3e9; those under --data by default. Each is seen once, unless --epochs, --samples
    or --minutes say otherwise."""
    devices: int = 1
    """Devices that train together, each like the one of this machine."""
    efficiency: float = 1.0
    """Images a second of all devices together, as a share of so many times those of one; in (0, 1]."""
    bytes_per_image: float | None = None
    """Size of an image file; by default the mean under --data, else 110 kB (a training image of ImageNet)."""
    device_tflops: float | None = None
    """Plan for another device than this one: its peak in 10^12 operations a second (a multiply-add is two) for --precision, as
    its data sheet says."""
    utilisation: float = 0.4
    """Share of that peak that is assumed to be reached; in (0, 1]."""
    measure_seconds: float = 10.0
    """Steps are timed for about so long after warming up; longer is steadier on a busy machine."""

    def __post_init__(self) -> None:
        if self.images is not None and not (math.isfinite(self.images) and self.images >= 1 and self.images == int(self.images)):
            raise ConfigError(f"--images must be a whole number from 1 up, not {self.images}.", "Use 1.3e9, for example.")
        if self.devices < 1:
            raise ConfigError(f"--devices must be at least 1, not {self.devices}.", "Use 1 or more.")
        for name, share in (("efficiency", self.efficiency), ("utilisation", self.utilisation)):
            if not 0 < share <= 1:
                raise ConfigError(f"--{name} must be in (0, 1], not {share}.", "Use 0.9, for example.")
        for name, value in (
            ("bytes-per-image", self.bytes_per_image),
            ("device-tflops", self.device_tflops),
            ("measure-seconds", self.measure_seconds),
        ):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"--{name} must be above 0, not {value}.", "Use a positive number.")

    def length_of(self, settings: BootstrapConfig) -> BootstrapConfig:
        """The settings with one pass over the images where a number of images was given, but no length.

        Raises:
            ConfigError: if nothing says how many images there are.
        """
        if self.images is None:
            if not settings.data.data:
                raise ConfigError("Neither images nor their number were given.", "Add --images 1.3e9 or --data, for example.")
            return settings
        length = settings.optimisation
        no_length = length.epochs is None and length.samples is None and length.minutes is None
        return settings.with_(epochs=1.0) if no_length else settings
