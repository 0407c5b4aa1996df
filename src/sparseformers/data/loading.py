"""Processes that read images: batches come from them in order, and they end when the work does, whatever ends it.

Batches travel as bytes, through shared memory. Where there is too little of it, as in a container, they travel in files.
"""

from __future__ import annotations

import atexit
import math
import os
import shutil
import signal
import tempfile
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing import active_children, get_start_method
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional

from sparseformers.errors import LoadingError, SparseFormersError

MOST_WORKERS = 8
BATCHES_AHEAD = 4  # most batches that each process keeps ready
MOST_BYTES_AHEAD = 2**30  # of all batches that are kept ready, however much shared memory there is
SHARED_MEMORY = Path("/dev/shm")  # on Linux; elsewhere it has no size of its own
LONGEST_FAREWELL = 2.0  # seconds that the processes get to end by themselves
SIGNALS = (signal.SIGINT, signal.SIGTERM)

Item = TypeVar("Item")
_OPEN: weakref.WeakSet[_Reading] = weakref.WeakSet()


def default_workers() -> int:
    """One process to read images with for each processor that this one may use, at most ``MOST_WORKERS``."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(MOST_WORKERS, (allowed or 1) // _sharing()))


class Loader(Generic[Item]):
    """What a dataset yields, read by ``workers`` processes (0: by this one); each iteration begins anew.

    ``collate`` makes of a batch what a process sends, with a tensor ``images`` of about ``batch_bytes``, and ``received`` makes
    of that what comes out; it may raise. ``options`` are further ones of PyTorch's DataLoader. Raises LoadingError while
    iterating, if the processes fail: no room in shared memory, too few open files, one of them killed.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        workers: int,
        batch_bytes: int,
        received: Callable[[Any], Item],
        collate: Callable[[Any], Any],
        **options: Any,
    ) -> None:
        self.dataset, self.workers, self.batch_bytes = dataset, workers, batch_bytes
        self.received, self.collate, self.options = received, collate, options

    def __len__(self) -> int:
        return len(self.options["batch_sampler"])

    def __iter__(self) -> Generator[Item]:
        with ExitStack() as stack:
            ahead, folder = batches_ahead(self.workers, self.batch_bytes), None
            if self.workers and not ahead:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sparseformers-", ignore_cleanup_errors=True))
            loader = DataLoader(
                self.dataset,
                num_workers=self.workers,
                collate_fn=partial(_ready_to_send, collate=self.collate, folder=folder) if self.workers else self.collate,
                prefetch_factor=max(1, ahead) if self.workers else None,
                pin_memory=torch.cuda.is_available(),
                worker_init_fn=_init_worker if self.workers else None,
                generator=torch.Generator().manual_seed(0),  # else making an iterator would draw from the global one
                **self.options,
            )
            reading = _Reading(loader, self.batch_bytes)
            stack.callback(reading.end)
            for sent in reading:
                in_file = isinstance(sent.images, _InFile)
                yield self.received(sent._replace(images=sent.images.open()) if in_file else sent)


class _Reading:
    """The processes of one iteration, until ``end``; the end of the program ends them, too."""

    def __init__(self, loader: DataLoader[Any], batch_bytes: int) -> None:
        self.loader, self.batch_bytes, self.has_begun = loader, batch_bytes, False
        self.items: Any = None

    def _begin(self) -> None:
        handler, others = signal.getsignal(signal.SIGCHLD), active_children()
        try:
            with _signals_wait():
                _OPEN.add(self)
                self.items = iter(self.loader)
        except BaseException:
            self.end()
            _kill([process for process in active_children() if process not in others])
            raise
        # PyTorch would raise the death of a process anywhere in this one; where batches are waited for is soon enough.
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGCHLD, handler)

    def __iter__(self) -> Iterator[Any]:
        self._begin()
        while True:
            try:
                sent = next(self.items)
            except StopIteration:
                return
            except Exception as error:
                told = None if isinstance(error, SparseFormersError) else self._explained(error)
                if told is None:
                    raise
                raise told from None
            self.has_begun = True
            yield sent

    def end(self) -> None:
        """Ends the processes; those that do not end by themselves are killed."""
        _OPEN.discard(self)
        items, self.items = self.items, None
        workers = list(getattr(items, "_workers", ()))
        if not workers:
            return
        # PyTorch's own way waits for each process in turn, and asks by a signal that they are deaf to.
        timer = threading.Timer(LONGEST_FAREWELL, _kill, [workers])
        timer.start()
        try:
            items._shutdown_workers()
        finally:
            timer.cancel()
            _kill(workers)

    def _explained(self, error: Exception) -> LoadingError | None:
        """What a user can do about an error of the processes; None for one of which nothing is known."""
        text, workers = str(error), self.loader.num_workers
        if "Too many open files" in text or "received 0 items of ancdata" in text:
            problem = f"The {workers} processes that read images ran out of open files ({_open_files()})."
            return LoadingError(problem, "Raise that by 'ulimit -n 4096', or lower --workers.")
        if any(sign in text for sign in ("shared memory", "Bus error", "No space left", "unable to mmap", "unable to write")):
            wanted = _mebibytes((workers * max(1, self.loader.prefetch_factor or 1) + 2) * self.batch_bytes)
            room = f"{_shared_memory()}, and {workers} workers may want {wanted} of it"
            remedy = "Lower --workers or --batch-size, or give a container more (docker run --shm-size=1g)."
            return LoadingError(f"Batches of images did not fit into shared memory: {room}.", remedy)
        if not text.startswith("DataLoader worker (pid") and not isinstance(error, ConnectionError | EOFError):
            return None
        if not self.has_begun and get_start_method() != "fork":
            remedy = "In a script, put its calls under 'if __name__ == \"__main__\":', as each process imports the script; "
            return LoadingError("The processes that read images ended as they started.", remedy + "or use --workers 0.")
        problem = "A process that reads images was killed, probably by the system as memory ran out."
        return LoadingError(problem, "Lower --workers or --batch-size, or free some memory.")


def batches_ahead(workers: int, batch_bytes: int) -> int:
    """Batches that each process may keep ready in half of the free shared memory; 0 if not even one fits."""
    if not workers:
        return 0
    room = MOST_BYTES_AHEAD
    if SHARED_MEMORY.is_dir():
        room = min(room, shutil.disk_usage(SHARED_MEMORY).free // 2 // _sharing())
    # Besides those that are ready one is in use, and one is being received.
    fitting = (room // max(1, batch_bytes) - 2) // workers
    return min(BATCHES_AHEAD, max(fitting, int(room == MOST_BYTES_AHEAD)))


def _init_worker(_worker: int) -> None:
    torch.set_num_threads(1)  # the workers share the processors already
    # A terminal's Ctrl-C and a scheduler's SIGTERM reach all processes, but the one they work for finishes its step first.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def to_bytes(images: Tensor) -> Tensor:
    """Images in [0, 1] that were made from bytes, as exactly these bytes."""
    return (images * 255).round().to(torch.uint8)


def from_bytes(images: Tensor) -> Tensor:
    """Bytes as images in [0, 1], the same to the bit on every device; floats stay as they are."""
    return functional.to_dtype(images, torch.float32, scale=True)


def images_on(device: torch.device | str, images: Tensor) -> Tensor:
    """A batch's images on a device as floats in [0, 1]; bytes are moved as bytes."""
    return from_bytes(images.to(device, non_blocking=True))


class _InFile(NamedTuple):
    path: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor, folder: str) -> _InFile:
        handle, path = tempfile.mkstemp(dir=folder)
        with os.fdopen(handle, "wb") as file:
            file.write(tensor.contiguous().numpy().data)
        return cls(path, tuple(tensor.shape), tensor.dtype)

    def open(self) -> Tensor:
        """The tensor; the file has no name any more."""
        tensor = torch.from_file(self.path, size=math.prod(self.shape), dtype=self.dtype).view(self.shape)
        Path(self.path).unlink()
        return tensor


def _ready_to_send(items: Any, *, collate: Callable[[Any], Any], folder: str | None) -> Any:
    """A batch whose images are in a file or in shared memory: to put them there while sending would fail without a word."""
    batch = collate(items)
    if not batch.images.numel():
        return batch
    return batch._replace(images=batch.images.share_memory_() if folder is None else _InFile.of(batch.images, folder))


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Keeps Ctrl-C and SIGTERM away from processes that are just starting, and from this one as long."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _kill(workers: list[Any]) -> None:
    for worker in workers:
        if worker.is_alive():
            worker.kill()


@atexit.register
def _end_all() -> None:
    """Ends what a traceback keeps; multiprocessing would wait for it for ever."""
    for reading in list(_OPEN):
        reading.end()


def _sharing() -> int:
    """Processes of this machine that train together."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _shared_memory() -> str:
    if not SHARED_MEMORY.is_dir():
        return "it is full"
    total, _, free = shutil.disk_usage(SHARED_MEMORY)
    return f"{_mebibytes(free)} of {_mebibytes(total)} are free in {SHARED_MEMORY}"


def _open_files() -> str:
    try:
        import resource
    except ModuleNotFoundError:  # Windows has no such limit
        return "a limit of the system"
    return f"at most {resource.getrlimit(resource.RLIMIT_NOFILE)[0]}"


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
