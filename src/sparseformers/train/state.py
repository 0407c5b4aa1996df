"""The state of a training between two steps: what a checkpoint is collected from, and what it is given back to.

The global random generators are part of it, though nothing in a training draws from them: a teacher or a student that is given as
a module may.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from sparseformers.errors import DataError, RunError
from sparseformers.evaluation import Alignment
from sparseformers.settings import from_dict, to_dict
from sparseformers.train.checkpoint import Snapshot
from sparseformers.train.lengths import Place
from sparseformers.train.processes import load_moments, load_weights, moments_of, weights_of
from sparseformers.train.recipe import refuse_changes
from sparseformers.train.settings import read_settings
from sparseformers.train.setup import Parts

if TYPE_CHECKING:
    from sparseformers.train.loop import Trainer

TENSOR, TUPLE, ITEMS = "$tensor", "$tuple", "$items"
"""Marks of what JSON has no form for; a mapping with keys that are no texts, or look like a mark, is a list of items."""


@dataclass
class TrainingState:
    """The place of a training; schedule, order of the images and their views are functions of the seed and ``samples``."""

    samples: int = 0  # images seen, those that could not be read counted in
    seconds: float = 0.0  # time spent training, over all resumptions
    fitting: float = 0.0  # of these, before the first step
    progress: float = 0.0  # share of the budget that is spent, in [0, 1]
    best: float = -2.0  # highest held-out centred cosine so far
    evaluations: int = 0
    alignment: Alignment | None = None  # the last measurement

    @property
    def place(self) -> Place:
        """Images and time, which the intervals between checkpoints go by."""
        return Place(self.samples, self.seconds)


def identity_of(parts: Parts) -> dict[str, Any]:
    """The identity of a training as plain JSON values: settings, images, and the teacher, whose weights are not in it."""
    train, held_out = parts.train, parts.held_out
    return {
        "settings": to_dict(parts.settings),
        "teacher": {"identity": to_dict(parts.teacher.identity), "fingerprint": parts.inheritance.provenance.teacher_fingerprint},
        # A place among the images, which is a number, means nothing among others.
        "data": {"train_images": len(train), "held_out_images": len(held_out), "digest": f"{train.digest()}/{held_out.digest()}"},
    }


def collect(trainer: Trainer) -> Snapshot:
    """All that going on needs; all processes call it together, and have to be in the same place.

    Each name of its ``stateful`` makes a file of tensors. The snapshot is whole in the main process, also where the student is
    sharded; its tensors are those that the training goes on changing.
    """
    student, optimiser = trainer.student, trainer.optimiser
    states: dict[str, Any] = {"student": weights_of(student), "optimiser": moments_of(student, optimiser)}
    states |= {name: part.state_dict() for name, part in trainer.stateful.items()}
    tensors: dict[str, dict[str, Tensor]] = {name: {} for name in states}
    content = {
        **trainer.identity,
        "training": to_dict(trainer.state),
        "skipped": trainer.skipped.state_dict(),
        "random": gather_object([random_state(trainer.accelerator.device)]),
        "parts": {name: pack(part, tensors[name]) for name, part in states.items()},
    }
    return Snapshot(content, {name: named for name, named in tensors.items() if named})


def restore(trainer: Trainer, snapshot: Snapshot) -> TrainingState:
    """Gives what :func:`collect` collected back; raises an error of ours if settings, images or teacher are others by now."""
    content = snapshot.state
    refuse_changes(read_settings(content["settings"], where="settings of the checkpoint")[0], trainer.settings)
    trainer.parts.inheritance.provenance.require_same_teacher(content["teacher"]["fingerprint"])
    there, found = content["data"], trainer.identity["data"]
    if there != found:
        before, now = (f"{data['train_images']:,} and {data['held_out_images']:,} held-out ones" for data in (there, found))
        told = f"{before} then, {now} now" if before != now else f"{now}, under other names"
        problem = f"The images are no longer those that the run has learnt from ({told})."
        raise DataError(problem, "Put them back as they were, or start a new run.")
    loading: dict[str, Callable[[Any], object]] = {
        "student": partial(load_weights, trainer.student),
        "optimiser": partial(load_moments, trainer.student, trainer.optimiser),
        **{name: part.load_state_dict for name, part in trainer.stateful.items()},
    }
    for name, load in loading.items():
        try:
            load(unpack(content["parts"][name], snapshot.tensors.get(name, {})))
        except (KeyError, ValueError, RuntimeError) as error:
            problem = f"The checkpoint's state of the {name} does not fit this training ({type(error).__name__})."
            remedy = "Go on with the version of sparseformers that the run was made with, or start it again with --overwrite."
            raise RunError(problem, remedy) from error
    trainer.skipped.load_state_dict(content["skipped"])
    return from_dict(TrainingState, content["training"], where="state in the checkpoint")


def random_state(device: torch.device) -> dict[str, Any]:
    """The states of Python's generator, numpy's, torch's, and that of the device that the process trains on."""
    version, words, gauss = random.getstate()
    numbers = np.random.get_state(legacy=False)  # noqa: NPY002  # the global one is what is asked for
    assert isinstance(numbers, dict)  # as the argument says
    state = {
        "python": [version, list(words), gauss],
        "numpy": {**numbers, "state": {**numbers["state"], "key": numbers["state"]["key"].tolist()}},
        "torch": bytes(torch.get_rng_state().tolist()).hex(),
    }
    if device.type != "cpu":
        state["device"] = bytes(torch.get_device_module(device).get_rng_state(device).tolist()).hex()
    return state


@contextmanager
def random_state_of(snapshot: Snapshot | None, accelerator: Accelerator) -> Iterator[None]:
    """Within it the generators go on from a snapshot, if it knows of this process; afterwards from where they were."""
    states, device = [] if snapshot is None else snapshot.state["random"], accelerator.device
    if accelerator.process_index >= len(states):
        yield
        return
    before = random_state(device)
    _restore(states[accelerator.process_index], device)
    try:
        yield
    finally:
        _restore(before, device)


def _restore(state: Mapping[str, Any], device: torch.device) -> None:
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    numbers = state["numpy"]
    key = np.array(numbers["state"]["key"], dtype=np.uint32)
    np.random.set_state({**numbers, "state": {**numbers["state"], "key": key}})  # noqa: NPY002  # as above
    torch.set_rng_state(_bytes(state["torch"]))
    if device.type != "cpu" and "device" in state:
        torch.get_device_module(device).set_rng_state(_bytes(state["device"]), device)


def _bytes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8).clone()


class Stateful(Protocol):
    """An object whose state is made of mappings, sequences, tensors, numbers and texts."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


def pack(value: Any, tensors: dict[str, Tensor], name: str = "") -> Any:
    """A state (the part of path ``name``) as plain JSON values; ``tensors`` takes its tensors by path. TypeError for others."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach()
        return {TENSOR: name}
    if isinstance(value, Mapping):
        packed = [(key, pack(item, tensors, f"{name}.{key}" if name else str(key))) for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key, _ in packed):
            return dict(packed)
        return {ITEMS: [[key, item] for key, item in packed]}
    if isinstance(value, (list, tuple)):
        items = [pack(item, tensors, f"{name}.{place}") for place, item in enumerate(value)]
        return {TUPLE: items} if isinstance(value, tuple) else items
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"'{name}' is a {type(value).__name__}, which a checkpoint cannot hold")


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The state that :func:`pack` made ``value`` of; raises KeyError if a tensor of it is missing."""
    if isinstance(value, list):
        return [unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if TENSOR in value:
        return tensors[value[TENSOR]]
    if TUPLE in value:
        return tuple(unpack(item, tensors) for item in value[TUPLE])
    if ITEMS in value:
        return {key: unpack(item, tensors) for key, item in value[ITEMS]}
    return {key: unpack(item, tensors) for key, item in value.items()}
