"""A run as people see it: a progress bar on the way, its summary and its model card at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from sparseformers.evaluation import Alignment, Cost, measure_cost
from sparseformers.evaluation.attention import MapAgreement
from sparseformers.files import write_text
from sparseformers.inheritance import InheritReport
from sparseformers.integrations.card import Figures, card_text
from sparseformers.model.sparseformer import WithTokens
from sparseformers.progress import figures_bar
from sparseformers.settings import from_dict, to_dict
from sparseformers.train.callbacks import Callback
from sparseformers.train.held_out import HeldOut, Measurement
from sparseformers.train.run_folder import RunFolder
from sparseformers.train.setup import Parts
from sparseformers.train.state import TrainingState


@dataclass(frozen=True)
class Costs:
    """Costs of student and teacher for an image of the run, which no step of a training changes."""

    student: Cost
    teacher: Cost
    patch_tokens: int  # that the teacher cuts such an image into
    dense_multiply_adds: int | None = None  # of the student with its map of features, where it learns one


@dataclass(frozen=True)
class RunSummary:
    """The figures that a run ends with."""

    path: Path
    alignment: Alignment  # at the end, on the held-out images
    samples: int  # images seen
    seconds: float
    images_per_second: float  # mean over the training
    data_wait: float  # share of the time spent waiting for images, in [0, 1]
    peak_memory_gib: float
    skipped: int  # unreadable images
    non_finite_steps: int  # skipped steps, whose loss or gradient was not a finite number
    student_cost: Cost
    teacher_cost: Cost
    dense_multiply_adds: int | None  # of the student with its map of features, where it learnt one
    report: InheritReport
    view_cache: Path | None  # the cache of views that was trained on


def measure_costs(parts: Parts) -> Costs:
    """The costs of a run, from shapes alone."""
    student, read_out = parts.inheritance.student, parts.inheritance.student.config.read_out
    dense = None if read_out is None else WithTokens(student, student.config.focusing.tokens, read_out.grid)
    return Costs(
        measure_cost(student, parts.size),
        measure_cost(parts.teacher, parts.size),
        parts.teacher.patch_tokens,
        None if dense is None else measure_cost(dense, parts.size).multiply_adds,
    )


def recorded_costs(resolved: Mapping[str, Any]) -> Costs | None:
    """The costs that a run wrote down when it began; None for one of an earlier version."""
    costs = resolved.get("costs")
    return None if costs is None else from_dict(Costs, costs, where="costs of the run")


def summary_of_finished(parts: Parts, run: RunFolder) -> RunSummary:
    """The summary of a run that is at its end, from its folder."""
    figures, lines = run.read_figures(), run.read_metrics()
    alignment = from_dict(Alignment, figures["alignment"], where=f"figures in '{run.config}'")
    skipped_steps = max((int(line.get("non_finite_steps", 0)) for line in lines), default=0)
    state = TrainingState(samples=figures["samples"], seconds=figures["seconds"], alignment=alignment)
    return summarise(parts, run, state, skipped=figures["skipped"], non_finite_steps=skipped_steps)


def summarise(
    parts: Parts, run: RunFolder, state: TrainingState, *, skipped: int, non_finite_steps: int, memory: float = 0.0
) -> RunSummary:
    """The summary of a training at its end, with what its folder tells; ``memory`` is the peak of this process, in GiB."""
    assert state.alignment is not None  # measured at the end, if not before
    costs = recorded_costs(run.read_config()["resolved"]) or measure_costs(parts)
    steps = [line for line in run.read_metrics() if line["kind"] == "train"]
    return RunSummary(
        path=run.path,
        alignment=state.alignment,
        samples=state.samples,
        seconds=state.seconds,
        images_per_second=state.samples / state.seconds if state.seconds else 0.0,
        data_wait=sum(line["data_wait"] for line in steps) / len(steps) if steps else 0.0,
        peak_memory_gib=max([memory, *(line["peak_memory_gib"] for line in steps)]),
        skipped=skipped,
        non_finite_steps=non_finite_steps,
        student_cost=costs.student,
        teacher_cost=costs.teacher,
        dense_multiply_adds=costs.dense_multiply_adds,
        report=parts.inheritance.report,
        view_cache=parts.cache_folder,
    )


class ProgressBar(Callback):
    """A bar with rate and time left; without a terminal, one line for each measurement."""

    def __init__(self, console: Console) -> None:
        self.console, self.held_out = console, "-"
        self._bar = figures_bar(console)
        self._task = self._bar.add_task("bootstrap", total=1.0, figures="starting")

    def on_start(self, state: TrainingState) -> None:
        self._bar.update(self._task, completed=state.progress)
        self._bar.start()

    def on_step(self, state: TrainingState, figures: Mapping[str, float] | None) -> None:
        self._bar.update(self._task, completed=state.progress)
        if figures is not None:
            told = f"loss {figures['loss']:.3f}  held-out {self.held_out}  {figures['images_per_second']:.0f} img/s"
            self._bar.update(self._task, figures=f"{told}  data wait {figures['data_wait']:.0%}")

    def on_measured(self, state: TrainingState, held_out: HeldOut, measurement: Measurement) -> None:
        alignment = measurement.alignment
        self.held_out = f"{alignment.centred_cosine:.3f}"
        dense = "" if measurement.dense_cosine is None else f"; maps {measurement.dense_cosine:.3f}"
        seen = (f"{state.progress:4.0%} {state.samples:>9,} images", "dim")
        others = f" (cosine {alignment.cosine_mean:.3f}, constant {alignment.constant_baseline:.3f};"
        others += f" neighbours {alignment.neighbour_agreement:.0%}{dense})"
        line = Text.assemble(seen, "  held-out centred cosine ", (self.held_out, "bold"), others)
        self.console.print(line, soft_wrap=True)

    def on_stop(self, error: BaseException | None) -> None:
        self._bar.stop()


class Card(Callback):
    """Writes the README of a finished run, and its figures into ``config.json``, from where they travel with the model."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run

    def on_end(self, parts: Parts, summary: RunSummary) -> None:
        last = [line for line in self.run.read_metrics() if line["kind"] == "held_out"][-1]
        student, provenance = parts.inheritance.student, parts.inheritance.provenance
        figures = Figures(
            alignment=summary.alignment,
            student_cost=summary.student_cost,
            teacher_cost=summary.teacher_cost,
            patch_tokens=parts.teacher.patch_tokens,
            samples=summary.samples,
            training_images=len(parts.train),
            skipped=summary.skipped,
            seconds=summary.seconds,
            seed=parts.settings.optimisation.seed,
            precision=parts.precision,
            licence=parts.teacher.identity.licence,
            map=MapAgreement(last["map_divergence"], last["map_overlap"]) if "map_overlap" in last else None,
            dense_cosine=last.get("dense_cosine"),
            dense_multiply_adds=summary.dense_multiply_adds,
        )
        self.run.write_manifest({**self.run.read_manifest(), "figures": to_dict(figures)})
        loading = f'sparseformers.load("{self.run.path.name}")'
        text = card_text(student.config, cost=figures.student_cost, provenance=provenance, figures=figures, loading=loading)
        write_text(self.run.card, text)
