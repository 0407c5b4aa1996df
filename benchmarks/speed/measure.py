"""All routes at one batch size, in turns: their times, and how near their embeddings are to those in float32."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.speed.backends import Route
from benchmarks.speed.config import SpeedConfig
from benchmarks.speed.images import Images
from benchmarks.speed.machine import PRODUCT, Machine, Reading, machine_of
from benchmarks.speed.operators import Profile
from benchmarks.speed.prepare import Prepared, short
from benchmarks.speed.report import Nearness, Row
from benchmarks.speed.subjects import Subject
from sparseformers.modes import inference
from sparseformers.profiling.backends import Runner
from sparseformers.profiling.profile import interleave, summarise_latency

READING = "reading memory"
"""The name of reading memory beside the routes."""


class References:
    """Embeddings in float32, operator by operator in PyTorch, computed once for each model.

    Args:
        images: to embed.
    """

    def __init__(self, images: Images) -> None:
        self._images = images
        self._embeddings: dict[str, Tensor] = {}

    def of(self, subject: Subject) -> Tensor:
        """N x D_out."""
        if subject.name not in self._embeddings:
            with inference(torch.device("cpu"), None):
                parts = self._images.compared(subject.preprocessing).split(16)
                self._embeddings[subject.name] = torch.cat([subject.network(part) for part in parts])
        return self._embeddings[subject.name]


class Opened(NamedTuple):
    """A route that is open for batches of one size, with a batch on the device."""

    run: Runner
    images: Tensor


class Measured(NamedTuple):
    """A row for each route, the machine's rates in the same turns, and a line for each route whose profiler failed."""

    rows: list[Row]
    machine: Machine
    left_out: list[str]


def measure(
    prepared: Prepared,
    subjects: Mapping[str, Subject],
    batch: int,
    *,
    settings: SpeedConfig,
    device: torch.device,
    images: Images,
    references: References,
    say: Callable[[str], None],
) -> Measured:
    """Opens all routes for batches of one size, compares what they give, and times them.

    Args:
        prepared: the routes; those that fail are left out of it from here on.
        subjects: the models by name, the machine's product among them.
        batch: images at a time.
        settings: how long to measure.
        device: where.
        images: to embed.
        references: what to compare with.
        say: is told of each route and turn.
    """
    opened: dict[Route, Opened] = {}
    cosines: dict[Route, Nearness] = {}
    for route, opening in list(prepared.openings.items()):
        say(f"batch {batch}: opening {route}")
        subject = subjects[route.model]
        try:
            runner = opening.open(1 if route.model == PRODUCT else batch)
            if route.model == PRODUCT:
                inputs = images.noise(subject.preprocessing, 1)
            else:
                inputs = images.batch(subject.preprocessing, batch)
                cosines[route] = nearness(runner, images.compared(subject.preprocessing), references.of(subject), batch, device)
            opened[route] = Opened(runner, inputs.to(device))
            _pass(*opened[route], device)()
        except Exception as error:  # whatever compilers and runtimes raise
            prepared.leave_out(route, short(error))
            opened.pop(route, None)
    prepared.require_models(len(subjects) - 1)
    # Time all of them in turns, beside the product and reading memory.
    turn = itertools.count(2)
    runs: dict[Route | str, Callable[[], object]] = {route: _pass(*each, device) for route, each in opened.items()}
    taken = interleave(
        {READING: _pass(Reading(device), None, device), **runs},
        turns=settings.turns,
        seconds=settings.seconds,
        on_turn=lambda: say(f"batch {batch}: {len(runs)} in turn {next(turn)} of {settings.turns}"),
    )
    products = {route: taken[route] for route in opened if route.model == PRODUCT}
    machine = machine_of(products, taken[READING], subjects[PRODUCT].cost.multiply_adds)
    # Trace them, which would have disturbed the times.
    models = {route: each for route, each in opened.items() if route.model != PRODUCT}
    profiles, left_out = ({}, []) if settings.trace is None else _profiles(prepared, models, settings.trace, say)
    rows = []
    for route in models:
        cost = prepared.openings[route].cost
        multiply_adds = batch * cost.multiply_adds
        rows.append(
            Row(
                route=route,
                multiply_adds=cost.multiply_adds,
                seconds=taken[route],
                latency=summarise_latency(batch, taken[route]),
                cosine=cosines.get(route),
                floor=machine.floor(route.precision, multiply_adds, cost.parameters),
                share=machine.share(route.precision, multiply_adds, taken[route]),
                peak_bytes=prepared.peaks.get((route, batch)),
                profile=profiles.get(route),
            )
        )
    return Measured(rows, machine, left_out)


def _profiles(
    prepared: Prepared, models: Mapping[Route, Opened], folder: Path, say: Callable[[str], None]
) -> tuple[dict[Route, Profile], list[str]]:
    """Where the time of each route goes, with traces in ``folder``; and a line for each that cannot be had."""
    profiles: dict[Route, Profile] = {}
    left_out = []
    for number, (route, (run, images)) in enumerate(models.items(), start=1):
        say(f"batch {len(images)}: tracing {route}")
        name = re.sub(r"[^A-Za-z0-9_.]+", "-", "-".join(route))
        try:
            path = folder / f"batch{len(images)}-{number:02}-{name}.json"
            profiles[route] = prepared.openings[route].profile(run, images, path)
        except Exception as error:  # whatever profilers raise, which is no reason to lose what was timed
            left_out.append(f"the trace of {route}, batch {len(images)}: {short(error)}")
    return profiles, left_out


def nearness(runner: Runner, images: Tensor, reference: Tensor, batch: int, device: torch.device) -> Nearness:
    """Puts images through a route in batches of its size, the last one filled up from the first ones.

    Args:
        runner: the route.
        images: N x 3 x H x W.
        reference: N x D_out, what they should give.
        batch: images at a time.
        device: where the route runs.
    """
    count = len(images)
    places = torch.arange(count + -count % batch) % count
    given = torch.cat([runner(images[part].to(device)).float().cpu() for part in places.split(batch)])[:count]
    cosines = F.cosine_similarity(given.double(), reference.double())
    return Nearness(cosines.mean().item(), cosines.min().item())


def _pass(run: Callable[..., object], inputs: Tensor | None, device: torch.device) -> Callable[[], object]:
    """One pass, which ends when the device has done its work."""

    def timed() -> object:
        result = run() if inputs is None else run(inputs)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return result

    return timed
