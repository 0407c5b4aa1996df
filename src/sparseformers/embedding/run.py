"""One embedding from settings to an index; it goes on with one that was stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from sparseformers.config import PreprocessingConfig
from sparseformers.data import default_workers, evaluation_view
from sparseformers.embedding.config import EmbedConfig
from sparseformers.embedding.formats import Columns, Finished, Info, Rows, output_format
from sparseformers.embedding.inputs import InputBatch, Inputs, InputStream, Listing, Position, find_inputs, input_batches
from sparseformers.embedding.parts import EmbeddedParts, EmbeddingFolder, PartFiles, PartRecord
from sparseformers.errors import ConfigError, DataError, RunError
from sparseformers.files import write_json
from sparseformers.inference import fold_embedding, pack_weights
from sparseformers.model import SparseFormer
from sparseformers.modes import Precision, autocast_dtype, evaluation_mode, inference, resolve_precision
from sparseformers.opening import open_student
from sparseformers.processes import process_state
from sparseformers.progress import ImageProgress, say
from sparseformers.saving import digest
from sparseformers.settings import flag, to_dict, with_words
from sparseformers.teachers import Teacher, load_teacher
from sparseformers.teachers.registry import KINDS

SAME = ("dtype", "tokens", "dense", "rois", "image_size", "crop", "precision", "batch_size", "part_images")  # these, to go on
Outputs = Callable[[Tensor], dict[str, Tensor]]


class Embedder:
    """A network, and the outputs that are kept of it; raises ConfigError if it does not have them."""

    def __init__(self, network: SparseFormer | Teacher, settings: EmbedConfig) -> None:
        if settings.rois and isinstance(network, Teacher):
            raise ConfigError(f"The teacher '{settings.model}' has no regions of interest.", "Leave out --rois.")
        if settings.dense and isinstance(network, SparseFormer) and network.config.read_out is None:
            problem = f"The student '{settings.model}' has no read-out, so there is no map to keep."
            raise ConfigError(problem, "Train one with bootstrap --dense, or keep its --tokens.")
        self.network, self.settings = network, settings

    @property
    def preprocessing(self) -> PreprocessingConfig:
        return self.network.preprocessing if isinstance(self.network, Teacher) else self.network.config.preprocessing

    def fingerprint(self) -> str:
        """SHA-256 over weights and configuration: two with the same one give the same rows."""
        if isinstance(self.network, Teacher):
            weights, configuration = self.network.fingerprint(), to_dict(self.network.anatomy)
        else:
            weights, configuration = digest(self.network.state_dict()), to_dict(self.network.config)
        described = {"weights": weights, "configuration": configuration, "preprocessing": to_dict(self.preprocessing)}
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        described: dict[str, Any] = {"model": self.settings.model, "fingerprint": self.fingerprint()}
        described |= {"preprocessing": to_dict(self.preprocessing), "dtype": self.settings.dtype}
        return described | ({"dense_grid": list(self.grid)} if self.settings.dense else {})

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the map of features."""
        if isinstance(self.network, Teacher):
            return self.network.grid
        assert self.network.config.read_out is not None  # which was asked for at the start
        return self.network.config.read_out.grid

    def ready(self, device: torch.device, autocast: torch.dtype | None) -> Callable[[Tensor], Columns]:
        """A function from images B x 3 x H x W in [0, 1] to their rows, for the network in evaluation mode on ``device``."""
        settings = self.settings
        outputs: Outputs = partial(_kept, self.network, settings, self.grid if settings.dense else None)
        if isinstance(self.network, SparseFormer) and not (settings.tokens or settings.rois or settings.dense):
            outputs = _embedding_alone(self.network, in_float32_on_cpu=device.type == "cpu" and autocast is None)
        dtypes = {"rois": "float32"}  # a float16 would move them by pixels of a large image

        def rows(images: Tensor) -> Columns:
            with inference(device, autocast):
                columns = outputs(images.to(device, non_blocking=True))
            arrays = {name: values.float().cpu().numpy() for name, values in columns.items()}
            with np.errstate(over="ignore"):  # what overflows is told of with the file's name
                return {name: values.astype(dtypes.get(name, self.settings.dtype)) for name, values in arrays.items()}

        return rows


def _kept(
    network: SparseFormer | Teacher, settings: EmbedConfig, grid: tuple[int, int] | None, images: Tensor
) -> dict[str, Tensor]:
    if isinstance(network, Teacher) and (settings.tokens or settings.dense):
        embedding, tokens = network.embedding_and_tokens(images)
        rows = tokens.flatten(2).transpose(1, 2)
        return {"embedding": embedding} | {name: rows for name in ("tokens", "dense") if getattr(settings, name)}
    output = network(images) if isinstance(network, Teacher) else network(images, grid=grid)
    kept = {"embedding": output.embedding}
    if settings.dense:
        kept["dense"] = output.dense.flatten(2).transpose(1, 2)
    if settings.tokens:
        kept["tokens"] = output.tokens
    if settings.rois:
        kept["rois"] = output.rois[:, -1]
    return kept


def _embedding_alone(student: SparseFormer, *, in_float32_on_cpu: bool) -> Outputs:
    """The embedding by a copy that does nothing else, which is faster."""
    network: nn.Module = fold_embedding(student)
    if in_float32_on_cpu and torch.backends.mkldnn.is_available():
        network = pack_weights(network)
    return lambda images: {"embedding": network(images)}


def load_network(settings: EmbedConfig) -> SparseFormer | Teacher:
    """The network that ``settings.model`` names; raises ConfigError, or another SparseFormersError if it cannot be loaded."""
    model = settings.model
    if model.partition(":")[0] in KINDS:
        return load_teacher(model, image_size=settings.image_size, crop=settings.crop)
    for name, value in (("image-size", settings.image_size), ("crop", settings.crop)):
        if value is not None:
            problem = f"--{name} is of teachers; '{model}' sees images as it did when it was made."
            raise ConfigError(problem, f"Leave out --{name}.")
    return open_student(model).student


@dataclass(frozen=True)
class EmbedSummary:
    """The outcome of an embedding."""

    out: Path
    rows: int
    skipped: int  # images that could not be read, listed in ``skipped_list`` with reasons
    skipped_list: Path
    went_on_from: int  # images that an earlier process had embedded
    seconds: float  # time that this process spent embedding
    images_per_second: float
    precision: str


@dataclass(frozen=True)
class _Job:
    settings: EmbedConfig
    inputs: Inputs
    embedder: Embedder
    parts: PartFiles
    device: torch.device
    precision: Precision
    info: Info


def embed(
    settings: EmbedConfig | str | Path | SparseFormer | Teacher | None = None,
    out: str | Path | None = None,
    *,
    model: str | Path | SparseFormer | Teacher | None = None,
    overwrite: bool = False,
    console: Console | None = None,
    **options: Any,
) -> EmbedSummary:
    """Embeds images of folders and tar shards into an index on the disk, as the command ``embed`` does; goes on after a stop.

    ``embed("runs/first", data=["photos"], out="photos.parquet")``, or with a settings object. Memory does not grow with the
    number of images. The work under way lies in ``OUT.partial``; the output appears whole.

    ``model`` is a run folder, a model file, a name, or a student or teacher itself; ``out`` a ``.parquet`` or ``.npy`` file, or a
    folder of Parquet files (a name without an ending). The ``options`` are the words of the command's, such as ``data`` and
    ``tokens``, and count more than ``settings``. Raises one of the kinds of SparseFormersError, with what to do: a
    :class:`RunError` if the output is there already (``overwrite`` replaces it, and what another command has begun of it), is in
    use by another process, or was begun with another model, other images or other settings.
    """
    if settings is not None and not isinstance(settings, EmbedConfig):
        settings, model = None, settings
    if isinstance(model, (str, Path)):
        options["model"], model = str(model), None
    elif model is not None and settings is None:
        options["model"] = f"module:{type(model).__name__}"
    settings = with_words(EmbedConfig, settings, options, where="call of embed")
    if out is None:
        raise ConfigError("No output was given.", 'Name it: out="photos.parquet", for example.')
    output, folder = output_format(Path(out)), EmbeddingFolder.beside(Path(out))
    console = console or Console(quiet=True)
    with folder.held():
        taken = output.taken()
        if taken is not None and not overwrite and not (folder.is_begun and folder.complete.is_file()):
            raise RunError(f"'{taken}' is there already.", "Choose another --out, or add --overwrite to replace it.")
        device = process_state().device
        network: Any = load_network(settings) if model is None else model
        if not isinstance(network, SparseFormer | Teacher):  # a network of a host library
            network = load_teacher(network)
        embedder = Embedder(network, settings)
        embedder.network.to(device)
        with folder.writing():
            inputs, resolved = _begun(settings, embedder, folder, device, overwrite=overwrite)
            for remark in inputs.remarks:
                say(console, remark)
            parts = PartFiles(folder, output)
            return _completed(_Job(settings, inputs, embedder, parts, device, resolved["precision"], resolved["info"]), console)


def _begun(
    settings: EmbedConfig, embedder: Embedder, folder: EmbeddingFolder, device: torch.device, *, overwrite: bool
) -> tuple[Inputs, dict[str, Any]]:
    """The inputs and resolved choices: those of the embedding that is under way, or of a new one."""
    if not folder.is_begun:
        folder.clear()  # a stop may have left something
    inputs = find_inputs(settings.data, folder.listing_now)
    # All that has to be the same to go on, by the names in which a difference is told.
    content: dict[str, Any] = {"the model": embedder.fingerprint(), "the shards": inputs.state()}
    content |= {flag(name): getattr(settings, name) for name in SAME}
    if folder.is_begun:
        try:
            resolved = folder.resolved(content, inputs.listing)
        except RunError:
            if not overwrite:
                raise
            folder.clear()
            inputs = find_inputs(settings.data, folder.listing_now)
    if inputs.listing is not None:
        inputs = replace(inputs, listing=Listing(folder.listing))
        folder.listing_now.replace(folder.listing)  # if it goes on: the same images, by the paths that lead to them now
    if not folder.is_begun:
        info = embedder.describe() | {"sparseformers": version("sparseformers")}
        resolved = {"precision": resolve_precision(settings.precision, device), "info": info}
        folder.begin(content, resolved)
    return inputs, resolved


def _completed(job: _Job, console: Console) -> EmbedSummary:
    """Makes the parts that are still missing and puts the output in its place."""
    folder, output = job.parts.folder, job.parts.output
    before = folder.completed() if folder.complete.is_file() else job.parts.finished()
    total, size = job.inputs.images, job.inputs.size
    with ImageProgress(console, "embedding", size=size, total=total, images=before.images, reached=before.reached) as bar:
        done = before
        if not folder.complete.is_file():
            job.parts.clear_after(before.parts)
            done = _make_parts(job, before, bar)
            _require_rows(job, done)
            write_json(folder.complete, to_dict(done))
        job.parts.write_skipped(done)
        output.install(Finished(folder.parts, done.parts, done.rows, folder.skipped), folder.fresh_workplace(), job.info)
    folder.clear()
    return EmbedSummary(
        out=output.out,
        rows=done.rows,
        skipped=done.skipped,
        skipped_list=output.files()[-1],
        went_on_from=before.images,
        seconds=bar.seconds,
        images_per_second=bar.images_per_second,
        precision=job.precision,
    )


def _make_parts(job: _Job, done: EmbeddedParts, bar: ImageProgress) -> EmbeddedParts:
    """Embeds from ``done`` to the end of the stream, part by part."""
    settings = job.settings
    view = evaluation_view(job.embedder.preprocessing)
    stream = InputStream(job.inputs, view, settings.batch_size, Position(done.source, done.item))
    workers = default_workers() if settings.workers is None else settings.workers
    embed_rows = job.embedder.ready(job.device, autocast_dtype(job.precision))
    rows: list[Rows] = []
    batches: list[InputBatch] = []
    with evaluation_mode(job.embedder.network):
        for batch in input_batches(stream, workers=workers):
            if batch.names:
                rows.append(Rows(batch.names, embed_rows(batch.images)))
                rows[-1].require_finite()
            batches.append(batch._replace(images=batch.images[:0]))
            bar.step(len(batch.names), len(batch.skipped), batch.reached)
            if sum(len(each.names) + len(each.skipped) for each in batches) >= settings.part_images:
                done = _add_part(job, done, rows, batches)
                rows, batches = [], []
    return _add_part(job, done, rows, batches) if batches else done


def _add_part(job: _Job, done: EmbeddedParts, rows: list[Rows], batches: list[InputBatch]) -> EmbeddedParts:
    skipped = tuple(pair for batch in batches for pair in batch.skipped)
    record = PartRecord(*batches[-1].end, batches[-1].reached, rows=sum(map(len, rows)), skipped=skipped, bytes=0)
    return done.after(job.parts.add(done.parts, rows, record, job.info))


def _require_rows(job: _Job, done: EmbeddedParts) -> None:
    """Raises DataError, and forgets what was done, if not a single image could be read."""
    if done.rows:
        return
    examples = "; ".join(line.replace("\t", ": ") for line in islice(job.parts.skipped_lines(done), 3))
    job.parts.folder.clear()
    if not done.skipped:
        raise DataError("The shards hold no images.", "Images are members whose names end in .jpg, .png, .webp or the like.")
    raise DataError(f"None of the {done.skipped:,} images could be read ({examples}).", "Give images that can be decoded.")
