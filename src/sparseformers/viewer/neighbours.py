"""The images of a folder that are nearest to one, by the embedding of a student or of the teacher."""

from __future__ import annotations

import threading
from typing import NamedTuple

import torch
from torch import Tensor

from sparseformers.config import PreprocessingConfig
from sparseformers.data import UnreadableImageError, evaluation_view, read_image
from sparseformers.errors import DataError, SparseFormersError
from sparseformers.evaluation import nearest_neighbours
from sparseformers.viewer.gallery import Gallery

BATCH = 8
"""Images at a time: a look at the page waits for no more than that."""


class Neighbour(NamedTuple):
    """An image of the folder."""

    number: int
    """In the gallery of the folder."""
    cosine: float
    """Of its embedding with that of the image asked about."""


class FolderIndex:
    """Embeddings of a folder by one network: made once, in a thread, and kept in memory.

    Args:
        network: gives an output with an ``embedding``; in evaluation mode, on ``device``.
        preprocessing: of the images that it is given.
        gallery: the folder's images.
        device: where the network is.
        turn: held while the network runs, so that one network runs at a time.
        most_pixels: of an image; larger ones are left out.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        preprocessing: PreprocessingConfig,
        gallery: Gallery,
        *,
        device: torch.device,
        turn: threading.Lock,
        most_pixels: int,
    ) -> None:
        self.network = network
        self.view = evaluation_view(preprocessing)
        self.gallery = gallery
        self.device = device
        self.turn = turn
        self.most_pixels = most_pixels
        self.done = 0
        """Images embedded or left out so far."""
        self.skipped: list[UnreadableImageError] = []
        """Images that cannot be read."""
        self.problem: SparseFormersError | None = None
        """Why there will be no embeddings."""
        self._rows: tuple[Tensor, Tensor] | None = None  # embeddings M x D, numbers M
        self._stopping = threading.Event()
        self._starting = threading.Lock()
        self._thread = threading.Thread(target=self._embed_all, name="neighbours", daemon=True)

    @property
    def ready(self) -> bool:
        """Whether all images are embedded."""
        return self._rows is not None

    def start(self) -> None:
        """Begins to embed, unless it has begun."""
        with self._starting:
            if self._thread.ident is None and not self._stopping.is_set():
                self._thread.start()

    def close(self) -> None:
        """Ends embedding, at the latest after the batch that is under way."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def nearest(self, embedding: Tensor, count: int, *, without: int | None = None) -> list[Neighbour]:
        """The images nearest to an embedding, nearest first.

        Args:
            embedding: D values.
            count: how many; fewer where the folder holds fewer.
            without: the number of the image itself, which is no neighbour of its own.

        Raises:
            ValueError: before :attr:`ready`.
        """
        if self._rows is None:
            raise ValueError("the folder is not embedded yet")
        rows, numbers = self._rows
        found = nearest_neighbours(embedding[None], rows, min(count + 1, len(rows)))
        pairs = zip(numbers[found.indices[0]].tolist(), found.similarities[0].tolist(), strict=True)
        return [Neighbour(number, cosine) for number, cosine in pairs if number != without][:count]

    def _embed_all(self) -> None:
        try:
            rows: list[Tensor] = []
            numbers: list[int] = []
            for start in range(0, len(self.gallery), BATCH):
                batch = range(start, min(start + BATCH, len(self.gallery)))
                seen = {number: image for number in batch if (image := self._read(number)) is not None}
                if self._stopping.is_set():
                    return
                if seen:
                    rows.append(self._embed(torch.stack(list(seen.values()))))
                    numbers += seen
                self.done += len(batch)
            if not rows:
                raise DataError(f"None of the {len(self.gallery)} images can be read.", "Name another folder.")
            self._rows = (torch.cat(rows), torch.tensor(numbers))
        except SparseFormersError as error:
            self.problem = error
        except Exception as error:  # the page has to say that no answer will come
            self.problem = DataError(f"Embedding the folder failed ({type(error).__name__}: {error}).", "Start the page again.")

    def _read(self, number: int) -> Tensor | None:
        """The view of an image; None if it cannot be read, which is noted."""
        try:
            return self.view(read_image(self.gallery.file(number), most_pixels=self.most_pixels))
        except UnreadableImageError as error:
            self.skipped.append(error)
            return None

    def _embed(self, images: Tensor) -> Tensor:
        with self.turn, torch.inference_mode():
            embedding = self.network(images.to(self.device)).embedding.float().cpu()
        return embedding.clone()
