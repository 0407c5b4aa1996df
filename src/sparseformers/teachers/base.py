"""The interface of teachers, whichever library they come from."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sparseformers.config import CortexConfig, PreprocessingConfig, RotaryConfig
from sparseformers.errors import TeacherError, WeightsError, shorten
from sparseformers.model.block import TransformerBlock
from sparseformers.model.cortex import build_cortex
from sparseformers.model.layers import build_norm
from sparseformers.model.sparseformer import Normalise


class TeacherOutput(NamedTuple):
    """The output of a teacher for images."""

    embedding: Tensor  # B x D_out, the final image embedding: the space that a student aligns to
    logits: Tensor | None  # B x classes; None without a classifier


class PatchEmbedding(NamedTuple):
    """The layers that turn a patch of pixels into a teacher's token."""

    weight: Tensor  # D x 3 x P x P, the kernel over normalised pixels
    bias: Tensor | None  # D
    positions: Tensor  # D x rows x columns, added to the token of each patch
    patch_norm: Mapping[str, Tensor] = {}  # weights of a norm over patches before positions are added (AIMv2); empty without one
    pre_norm: Mapping[str, Tensor] = {}  # weights of a norm over the tokens before the first block (CLIP); empty without one

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None, positions: Tensor, *norms: nn.Module | None) -> PatchEmbedding:
        return cls(weight, bias, positions, *({} if norm is None else norm.state_dict() for norm in norms))

    @property
    def projection(self) -> dict[str, Tensor]:
        """The weights of the convolution."""
        return {"weight": self.weight} | ({} if self.bias is None else {"bias": self.bias})


@dataclass(frozen=True, kw_only=True)
class TeacherIdentity:
    """A teacher's name and origin, for the run folder; its weights are never copied there."""

    name: str  # as the user named it, for example ``timm:vit_base_patch16_224.augreg_in21k_ft_in1k``
    source: str  # the file or repository that its weights came from
    place: str = ""  # of several networks in that file the one that was taken
    licence: str | None = None
    class_names: tuple[str, ...] | None = None  # of its classifier's outputs


PASSED_IN = TeacherIdentity(name="a module passed in", source="passed in from Python")


class Teacher(nn.Module, ABC):
    """A foundation model to inherit from, behind one interface; one adapter per host library.
    ``network`` is the host library's module, never changed; ``anatomy`` its blocks and everything after them, at full depth;
    ``patch_size`` the side of a patch in pixels. Raises TeacherError unless its blocks are the cortex's by their weights.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        identity: TeacherIdentity,
        anatomy: CortexConfig,
        preprocessing: PreprocessingConfig,
        patch_size: int,
    ) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.identity, self.anatomy = identity, anatomy
        self.preprocessing, self.patch_size = preprocessing, patch_size
        self.normalise = Normalise(preprocessing.mean, preprocessing.std)
        with torch.device("meta"):
            expected = TransformerBlock(anatomy.block).state_dict()
        if odd := self.block_state(0).keys() ^ expected.keys():
            raise refuse(identity.name, f"its blocks are not plain transformer blocks (they differ in: {shorten(odd)})")

    @property
    @abstractmethod
    def host_blocks(self) -> Sequence[nn.Module]:
        """The host's transformer blocks, first to last; each takes and gives B x T x D tokens."""

    @abstractmethod
    def embed(self, normalised: Tensor) -> TeacherOutput:
        """Normalised images B x 3 x H x W through the host's own forward."""

    @abstractmethod
    def block_state(self, index: int) -> dict[str, Tensor]:
        """The weights of one block under the names of :class:`~sparseformers.model.block.TransformerBlock`."""

    @abstractmethod
    def head_state(self) -> dict[str, Tensor]:
        """The weights after the blocks under the names of :class:`~sparseformers.model.cortex.CortexTransformer`."""

    @abstractmethod
    def patch_embedding(self) -> PatchEmbedding:
        """The layers that make tokens of pixels, with the positions of its own grid of patches."""

    def attention_positions(self, rows: int, columns: int) -> dict[str, Tensor]:
        """What its attention is told of places on a grid of patches, as weights of :mod:`sparseformers.model.positions`.
        As the host has it on images of that size; empty for teachers that tell positions to their tokens alone.
        """
        return {}

    def liberties(self) -> tuple[str, ...]:
        """Sentences on what was done to its weights so that they are the cortex's; the function is the same."""
        return ()

    @property
    def has_positions(self) -> bool:
        """Whether it adds positions to its tokens."""
        return True

    @property
    def depth(self) -> int:
        return self.anatomy.depth

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patches in an image of its own size."""
        height, width = self.preprocessing.size
        return height // self.patch_size, width // self.patch_size

    @property
    def patch_tokens(self) -> int:
        return math.prod(self.grid)

    def forward(self, images: Tensor) -> TeacherOutput:
        """Embeds images B x 3 x H x W in [0, 1]; raises ValueError unless they are of ``preprocessing.size``."""
        if tuple(images.shape[-2:]) != self.preprocessing.size:
            raise ValueError(f"the teacher takes images of {self.preprocessing.size}, not {tuple(images.shape[-2:])}")
        return self.embed(self.normalise(images))

    def embedding_and_tokens(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Its embedding B x D_out and its patch tokens after the final norm, B x D x rows x columns."""
        captured: list[Tensor] = []
        with self._last_block_tells(captured):
            embedding = self(images).embedding
        tokens = captured[0][:, self.anatomy.prefix_tokens :]
        if self.anatomy.final_norm:
            norm = build_norm(self.anatomy.block).to(tokens.device)
            state = {name.removeprefix("norm."): value for name, value in self.head_state().items() if name.startswith("norm.")}
            norm.load_state_dict(state)
            tokens = norm.requires_grad_(False)(tokens.float())
        return embedding, tokens.transpose(1, 2).unflatten(-1, self.grid)

    def block_inputs(self, images: Tensor) -> list[Tensor]:
        """The tokens that enter each block and, last, those that leave the last one: L+1 tensors B x T x D."""
        captured: list[Tensor] = []

        def capture(_: nn.Module, positional: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
            captured.append(positional[0] if positional else named["hidden_states"])

        with ExitStack() as stack:
            for block in self.host_blocks:
                stack.enter_context(block.register_forward_pre_hook(capture, with_kwargs=True))
            stack.enter_context(self._last_block_tells(captured))
            self(images)
        return captured

    def _last_block_tells(self, captured: list[Tensor]) -> RemovableHandle:
        return self.host_blocks[-1].register_forward_hook(
            lambda _, __, result: captured.append(result if isinstance(result, Tensor) else result[0])
        )

    @torch.no_grad()
    def prefix_tokens(self) -> Tensor:
        """Its class token and registers as they enter the first block (positions and pre-norm applied): R x D."""
        # The patches cannot reach them before the first block, so any image will do.
        first = self.block_inputs(self.normalise.mean.expand(1, 3, *self.preprocessing.size))[0]
        return first[0, : self.anatomy.prefix_tokens].clone()

    def positions_on(self, rows: int, columns: int) -> Tensor:
        """Its position embeddings resampled to another grid of patches (bicubic, antialiased): D x rows x columns."""
        positions = self.patch_embedding().positions.detach().float()
        if tuple(positions.shape[1:]) == (rows, columns):
            return positions.clone()
        return F.interpolate(positions[None], size=(rows, columns), mode="bicubic", antialias=True)[0]

    def cortex_state(self) -> dict[str, Tensor]:
        """All weights of a cortex of this anatomy, contiguous copies; raises WeightsError if one is missing or misshapen."""
        state = {f"blocks.{i}.{name}": value for i in range(self.depth) for name, value in self.block_state(i).items()}
        state |= self.head_state() | self.positions_state(*self.grid)
        if self.anatomy.prefix_tokens:
            state["prefix.tokens"] = self.prefix_tokens()
        with torch.device("meta"):
            expected = build_cortex(self.anatomy).state_dict()
        check_fit(expected, state, what=f"the teacher '{self.identity.name}'")
        if odd := [name for name, value in state.items() if not value.isfinite().all()]:
            problem = f"The weights of the teacher '{self.identity.name}' are not all finite numbers ({shorten(odd)})."
            raise WeightsError(problem, "Use another checkpoint: this one comes from a training that failed.")
        return {name: value.detach().float().contiguous().clone() for name, value in state.items()}

    def positions_state(self, rows: int, columns: int) -> dict[str, Tensor]:
        """The part of :meth:`cortex_state` that depends on the grid of patches, for any grid."""
        state = self.attention_positions(rows, columns)
        return {f"positions.{name}": value.detach().float().contiguous().clone() for name, value in state.items()}

    def anatomy_on(self, rows: int, columns: int) -> CortexConfig:
        """The form of a cortex of all its blocks for images of so many patches."""
        positions = self.anatomy.positions
        if isinstance(positions, RotaryConfig):
            positions = dataclasses.replace(positions, aspect=rows / columns)
        elif positions is not None:
            positions = dataclasses.replace(positions, grid=(rows, columns))
        return dataclasses.replace(self.anatomy, positions=positions)

    def fingerprint(self) -> str:
        """SHA-256 over all its weights: two teachers with the same one give the same embeddings."""
        digest = hashlib.sha256()
        for name, value in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def check_fit(expected: Mapping[str, Tensor], given: Mapping[str, Tensor], *, what: str) -> None:
    """Raises WeightsError unless two state dicts have the same names and shapes; lists at most ten of each difference."""
    faults = []
    if missing := expected.keys() - given.keys():
        faults.append(f"missing: {shorten(missing)}")
    if unexpected := given.keys() - expected.keys():
        faults.append(f"unexpected: {shorten(unexpected)}")
    if wrong := {name for name in expected.keys() & given.keys() if expected[name].shape != given[name].shape}:
        shapes = (f"{name} {list(given[name].shape)} instead of {list(expected[name].shape)}" for name in wrong)
        faults.append(f"other shape: {shorten(shapes)}")
    if faults:
        problem = f"The weights of {what} do not fit ({'; '.join(faults)})."
        raise WeightsError(problem, "Check that the file belongs to this architecture.")


def refuse(name: str, reason: str) -> TeacherError:
    """The error for a teacher that exists but cannot be inherited from."""
    remedy = "Choose another, for example timm:vit_base_patch16_224.augreg_in21k_ft_in1k: sparseformers teachers lists them."
    return TeacherError(f"'{name}' cannot be inherited from yet: {reason}.", remedy)


def check_image_size(image_size: tuple[int, int] | None, patch_size: int) -> None:
    """Raises TeacherError unless an image of this height and width in pixels, if given, is one or more whole patches."""
    if image_size is None:
        return
    if min(image_size) < patch_size:
        problem = f"An image size of {min(image_size)} does not hold a single patch of {patch_size} x {patch_size} pixels."
        raise TeacherError(problem, f"Use a multiple of {patch_size}, for example {16 * patch_size}.")
    if odd := next((side for side in image_size if side % patch_size), None):
        problem = f"An image size of {odd} is not of whole patches of {patch_size} x {patch_size} pixels."
        raise TeacherError(problem, f"Use {odd // patch_size * patch_size} or {(odd // patch_size + 1) * patch_size}.")


def square_patch(sides: Sequence[int], name: str) -> int:
    """The side of a teacher's patches in pixels; raises TeacherError unless they are squares."""
    if len(set(sides)) > 1:
        raise refuse(name, f"its patches are {sides[0]} x {sides[1]} pixels, and not squares")
    return int(sides[0])


def own_size(positions: int, patch_size: int, *known: tuple[int, int] | None) -> tuple[int, int]:
    """The height and width that weights with so many positions were made for: the first known one that fits, or a square.

    Raises WeightsError where none does.
    """
    for size in known:
        if size is not None and (size[0] // patch_size) * (size[1] // patch_size) == positions:
            return size
    side = math.isqrt(positions)
    if side * side != positions or not side:
        problem = f"The weights have positions for {positions} patches, which make no square."
        raise WeightsError(problem, "Say the height and width that they were made for: --image-size 256x128, for example.")
    return side * patch_size, side * patch_size


def named_weights(rooms: Mapping[str, nn.Module | None]) -> dict[str, Tensor]:
    """The weights of several modules, each under the name of its room; None stands for a module that is not there."""
    there = {room: module for room, module in rooms.items() if module is not None}
    return {f"{room}.{name}": value for room, module in there.items() for name, value in module.state_dict().items()}
