"""The page's questions, answered from networks and images. Knows nothing of the web."""

from __future__ import annotations

import threading
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from sparseformers.teachers import Teacher
from sparseformers.viewer.config import ViewConfig
from sparseformers.viewer.images import GoneError, Library, Photograph, Recent
from sparseformers.viewer.networks import FolderIndex, Networks, ShownModel, embed, load_networks

ANSWERS = 96  # answers of networks that are kept
NEIGHBOURS = 8  # neighbours that are shown


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
        answer: dict[str, Any] = self._answers.once(("attention", key), lambda: self.networks.attend(photograph))
        return answer

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
