"""The page's questions, answered from networks and images as plain JSON values. Knows nothing of the web.

Legend: S stages, N latent tokens, P sampling points. Coordinates are x to the right and y down, in [0, 1] of the network's input;
``seen`` is its part of the photograph.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sparseformers.config import PreprocessingConfig
from sparseformers.data import UnreadableImageError, evaluation_view, read_image
from sparseformers.errors import DataError, SparseFormersError
from sparseformers.evaluation import TeacherAttention, nearest_neighbours, token_influence
from sparseformers.figures import token_colours, trace_rois
from sparseformers.model import SparseFormer
from sparseformers.opening import open_student, open_teacher_if_there
from sparseformers.processes import process_state
from sparseformers.teachers import Teacher
from sparseformers.viewer.config import ViewConfig
from sparseformers.viewer.images import Gallery, GoneError, Library, Photograph, Recent

ANSWERS = 96  # answers of networks that are kept
NEIGHBOURS = 8  # neighbours that are shown
DIGITS = 5  # decimals of a coordinate: a hundredth of a pixel of what the page shows
BATCH = 8  # images of a folder embedded at a time: a question of the page waits for no more than that


@dataclass(frozen=True, eq=False)
class ShownModel:
    """A student on its device, in evaluation mode."""

    name: str  # as the user named it
    student: SparseFormer

    @property
    def preprocessing(self) -> PreprocessingConfig:
        return self.student.config.preprocessing

    @property
    def colours(self) -> list[str]:
        """One colour for each token, #rrggbb, those of the figures."""
        from matplotlib.colors import to_hex

        return [to_hex(colour) for colour in token_colours(self.student.config.focusing.tokens)]

    def trace(self, photograph: Photograph) -> dict[str, Any]:
        """What the page shows of a photograph: ``rois`` S x N x 4, ``stages`` S names, ``points`` of each N x P x 2 or None.

        ``map`` is h x w shares that sum to one, or None; ``influence`` N such shares, or None with an ``influence_problem``.
        """
        given = photograph.inputs[self.preprocessing]
        images = given.image()[None]
        (picture,) = trace_rois(self.student, images, [photograph.name])
        influence = problem = None
        try:
            influence = _plain(token_influence(self.student, images)[0])
        except SparseFormersError as error:
            problem = error.problem
        # v1 moves its RoIs before it reads, so that nothing is read at its first stage.
        unread = len(picture.rois) - len(picture.points)
        return {
            "rois": _plain(picture.rois),
            "stages": picture.stage_names,
            "map": None if picture.attention_map is None else _plain(picture.attention_map, 7),
            "points": [None] * unread + [_plain(points) for points in picture.points],
            "influence": influence,
            "influence_problem": problem,
            "seen": given.seen,
        }


@dataclass(frozen=True, eq=False)
class Networks:
    """One or two students, and the teacher of the first where it can be had."""

    models: tuple[ShownModel, ...]
    teacher: Teacher | None  # in evaluation mode
    teacher_problem: str | None  # why there is no teacher
    device: torch.device

    @property
    def preprocessings(self) -> set[PreprocessingConfig]:
        return {network.preprocessing for network in (*self.models, self.teacher) if network is not None}

    @cached_property
    def _attention(self) -> TeacherAttention:
        assert self.teacher is not None
        return TeacherAttention(self.teacher)

    def attend(self, photograph: Photograph) -> dict[str, Any]:
        """Attention of the teacher: ``last`` and ``rollout``, h x w shares that sum to one, row by row, and ``seen``."""
        assert self.teacher is not None
        given = photograph.inputs[self.teacher.preprocessing]
        maps = self._attention(given.image()[None])
        return {"last": _plain(maps.last[0], 7), "rollout": _plain(maps.rollout[0], 7), "seen": given.seen}


def load_networks(run: str, beside: str | None = None, teacher: str | None = None) -> Networks:
    """Loads one or two models and the teacher of the first, which may be missing unless asked for."""
    device = process_state().device
    saved = [(name, open_student(name)) for name in (run, beside) if name is not None]
    models = tuple(ShownModel(name, each.student.to(device).eval()) for name, each in saved)
    found, problem = open_teacher_if_there(saved[0][1], teacher, name=run)
    return Networks(models, None if found is None else found.to(device).eval(), problem, device)


@torch.inference_mode()
def embed(network: ShownModel | Teacher, images: Tensor, device: torch.device) -> Tensor:
    """Embeddings of images B x 3 x H x W in [0, 1], B x D on the CPU."""
    module = network.student if isinstance(network, ShownModel) else network
    return module(images.to(device)).embedding.float().cpu().clone()


def _plain(values: Tensor, digits: int = DIGITS) -> Any:
    """A tensor as nested lists; rounded, because a float32 has no more to say and takes twice the characters."""
    return torch.round(values.double(), decimals=digits).tolist()


class FolderIndex:
    """Embeddings of a folder by one network, made once by a thread that holds ``turn`` while the network runs."""

    def __init__(
        self, network: ShownModel | Teacher, gallery: Gallery, *, device: torch.device, turn: threading.Lock, most_pixels: int
    ) -> None:
        self.network, self.view = network, evaluation_view(network.preprocessing)
        self.gallery, self.device, self.turn, self.most_pixels = gallery, device, turn, most_pixels
        self.done = 0  # images embedded or left out so far
        self.skipped: list[UnreadableImageError] = []  # images that cannot be read
        self.problem: SparseFormersError | None = None  # why there will be no embeddings
        self._rows: tuple[Tensor, Tensor] | None = None  # embeddings M x D, numbers M
        self._stopping = threading.Event()
        self._starting = threading.Lock()
        self._thread = threading.Thread(target=self._embed_all, name="neighbours", daemon=True)

    @property
    def ready(self) -> bool:
        return self._rows is not None

    def start(self) -> None:
        with self._starting:
            if self._thread.ident is None and not self._stopping.is_set():
                self._thread.start()

    def close(self) -> None:
        """Ends embedding, at the latest after the batch that is under way."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def nearest(self, embedding: Tensor, count: int, *, without: int | None) -> list[tuple[int, float]]:
        """Number and cosine of the images nearest to an embedding (D values), nearest first, ``without`` the image itself."""
        assert self._rows is not None  # it is asked only when it is ready
        rows, numbers = self._rows
        found = nearest_neighbours(embedding[None], rows, min(count + 1, len(rows)))
        pairs = zip(numbers[found.indices[0]].tolist(), found.similarities[0].tolist(), strict=True)
        return [pair for pair in pairs if pair[0] != without][:count]

    def _embed_all(self) -> None:
        try:
            rows, numbers = list[Tensor](), list[int]()
            for start in range(0, len(self.gallery), BATCH):
                batch = range(start, min(start + BATCH, len(self.gallery)))
                seen = {number: image for number in batch if (image := self._read(number)) is not None}
                if self._stopping.is_set():
                    return
                if seen:
                    with self.turn:
                        rows.append(embed(self.network, torch.stack(list(seen.values())), self.device))
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
        try:
            return self.view(read_image(self.gallery.file(number), most_pixels=self.most_pixels))
        except UnreadableImageError as error:
            self.skipped.append(error)
            return None


class Session:
    """Answers the page's questions, in plain JSON values and to any number of threads; networks run one at a time."""

    def __init__(self, config: ViewConfig, networks: Networks | None = None) -> None:
        self.config = config
        self.library = Library(config)  # first: its faults show at once, a model's after seconds
        self.networks = networks or load_networks(config.run, config.beside, config.teacher)
        self._turn = threading.Lock()
        self._answers: Recent[tuple[str, ...], Any] = Recent(ANSWERS, self._turn)
        self._asked: dict[str, ShownModel | Teacher] = {str(number): model for number, model in enumerate(self.networks.models)}
        if self.networks.teacher is not None:
            self._asked["teacher"] = self.networks.teacher
        # By the network's number, or ``teacher``; empty without a folder.
        embedded = {} if config.neighbours is None else self._asked
        running: dict[str, Any] = {"device": self.networks.device, "turn": self._turn, "most_pixels": config.most_pixels}
        self.indices = {name: FolderIndex(each, self.library.neighbours, **running) for name, each in embedded.items()}

    def start(self) -> None:
        """Begins to embed the folder of neighbours by the first model; another network's turn comes when it is asked."""
        if self.indices:
            self.indices["0"].start()

    def close(self) -> None:
        for index in self.indices.values():
            index.close()

    def state(self) -> dict[str, Any]:
        networks, config = self.networks, self.config
        folder = None if config.neighbours is None else {"name": config.neighbours.name, "images": len(self.library.neighbours)}
        return {
            "models": [{"name": model.name, "tokens": len(model.colours), "colours": model.colours} for model in networks.models],
            "teacher": None if networks.teacher is None else networks.teacher.identity.name,
            "teacher_problem": networks.teacher_problem,
            "images": len(self.library.images),
            "neighbours": folder,
            "most_bytes": config.most_bytes,
        }

    def upload(self, content: bytes, name: str) -> dict[str, Any]:
        return self.describe(self.library.upload(content, name, self.networks.preprocessings))

    def describe(self, key: str) -> dict[str, Any]:
        photograph = self.photograph(key)
        return {"key": key, "name": photograph.name, "width": photograph.width, "height": photograph.height}

    def photograph(self, key: str) -> Photograph:
        return self.library.photograph(key, self.networks.preprocessings)

    def trace(self, key: str, model: str) -> dict[str, Any]:
        """RoIs of a model on an image, see :meth:`ShownModel.trace`; with a teacher, ``cosine`` of their embeddings, too."""
        network = self._network(model)
        if not isinstance(network, ShownModel):
            raise GoneError("A teacher has no regions of interest.", "Ask for a model.")
        photograph = self.photograph(key)
        answer: dict[str, Any] = self._answers.once(("trace", key, model), lambda: network.trace(photograph))
        near = None
        if self.networks.teacher is not None:
            own, other = self._embedding(key, photograph, model), self._embedding(key, photograph, "teacher")
            near = round(float(F.cosine_similarity(own, other, dim=0)), 4) if own.shape == other.shape else None
        return answer | {"cosine": near}

    def attention(self, key: str) -> dict[str, Any]:
        self._network("teacher")
        photograph = self.photograph(key)
        return self._answers.once(("attention", key), lambda: self.networks.attend(photograph))

    def nearest(self, key: str, by: str) -> dict[str, Any]:
        """Neighbours of an image in the folder by a model (its number) or the ``teacher``; raises SparseFormersError for none.

        ``state`` is ``embedding``, with ``done`` and ``total``; or ``ready``, with ``results`` (key, name, cosine), ``skipped``.
        """
        self._network(by)
        if by not in self.indices:
            raise GoneError("No folder to look for neighbours in was given.", "Start the page with --neighbours DIR.")
        index = self.indices[by]
        index.start()
        if index.problem is not None:
            raise index.problem
        if not index.ready:
            return {"state": "embedding", "done": index.done, "total": len(index.gallery)}
        embedding = self._embedding(key, self.photograph(key), by)
        found = index.nearest(embedding, NEIGHBOURS, without=self.library.neighbour_number(key))
        results = [{"key": f"n{each}", "name": index.gallery.name(each), "cosine": round(cosine, 4)} for each, cosine in found]
        return {"state": "ready", "results": results, "skipped": len(index.skipped)}

    def _network(self, name: str) -> ShownModel | Teacher:
        if name not in self._asked:
            raise GoneError(self.networks.teacher_problem or "There is no such model.", "Choose one that is shown.")
        return self._asked[name]

    def _embedding(self, key: str, photograph: Photograph, by: str) -> Tensor:
        network = self._network(by)
        images = photograph.inputs[network.preprocessing].image()[None]
        return self._answers.once(("embedding", key, by), lambda: embed(network, images, self.networks.device)[0])
