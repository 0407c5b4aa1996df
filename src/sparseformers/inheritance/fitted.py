"""A fitted start: of the papers' front in closed form, of the mixed-resolution front's selector in seconds. Beyond the papers.

The papers' front is fitted to the tokens of the teacher at a lower resolution: its own start gives tokens twenty times too large
for the cortex. On an image that is just large enough for N patches, the teacher has a token for each of the N cells at the depth
where the student's blocks begin. So RoIs start as those cells, prefix tokens as their mean there, and the three linear maps of
the last sampling as ridge regressions to those tokens. No gradient step is taken for it.

A new selector gives a flat map. Fitted to the maps of the teacher's attention of some thousand images it tells most of where the
teacher looks; what it sees of each is computed once.

Legend: M images, N latent tokens, R prefix tokens, D width of the cortex.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sparseformers import rois as roi_arithmetic
from sparseformers.inheritance.inheriting import inherit
from sparseformers.model import SparseFormer
from sparseformers.model.cortex import PrefixTokens
from sparseformers.model.focusing import FocusingTransformer
from sparseformers.model.grid import read_map
from sparseformers.model.mixed_resolution import MixedResolutionFront
from sparseformers.model.sampling import RoIPosition
from sparseformers.model.selector import map_divergence, shares_on
from sparseformers.teachers import Teacher

AT_ONCE = 64  # images that are put through a network together, and images of a step
RIDGE = 1e-2  # the ridge of the regressions, as a share of the mean variance of their inputs
PLACES = 256  # draws of other places and sizes for each RoI, so that the position projection holds where RoIs will move, too
STEPS_FOR_AN_IMAGE, FEWEST_STEPS, MOST_STEPS = 0.6, 30, 600  # of the fit of a map
LOOKS = 10  # at the images that are kept back, during it
RATE, WEIGHT_DECAY = 3e-3, 0.5
KEPT_BACK = 10  # one of so many images tells when to stop


class CoarseTokens(nn.Module):
    """The ``depth`` leading blocks of a teacher, copied and frozen, on images so small that N patches are the cells of a grid."""

    def __init__(self, teacher: Teacher, *, tokens: int, depth: int) -> None:
        super().__init__()
        student = inherit(teacher, front="grid", tokens=tokens).student
        self.prefix_tokens = student.config.cortex.prefix_tokens  # R
        self.normalise, self.front, self.cortex, self.depth = student.normalise, student.focusing, student.cortex, depth
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        """Images M x 3 x H x W in [0, 1] of any size -> the teacher's tokens there, M x (R+N) x D."""
        front = self.front(self.normalise(images))
        tokens, places = front.tokens, self.cortex.places(front.final_rois)
        for block, its_places in zip(self.cortex.blocks[: self.depth], places, strict=False):
            tokens = block(tokens, its_places)
        return tokens

    def latent(self, images: Tensor) -> Tensor:
        """The same without the prefix tokens: M x N x D."""
        tokens: Tensor = self(images)
        return tokens[:, self.prefix_tokens :]


class LinearMap(NamedTuple):
    """The result of a regression."""

    weight: Tensor  # D_out x D_in
    bias: Tensor  # D_out


@torch.no_grad()
def fit_start(student: SparseFormer, teacher: Teacher, images: Tensor, *, truncated: int, seed: int = 0) -> float:
    """Fits the starting values of a student with the papers' front, in place.

    ``images`` are some hundreds of those to learn from, M x 3 x H x W in [0, 1] at the teacher's size, on its device, and
    ``truncated`` the blocks of the teacher that the student leaves behind. Returns the share of the variance of the teacher's
    tokens that is left on them, in [0, 1] but for rounding; raises TypeError if the student has another front.
    """
    front = student.focusing
    if not isinstance(front, FocusingTransformer):
        raise TypeError(f"a fitted start is for the papers' front, not for a {type(front).__name__}")
    # What the teacher's tokens are at that depth for each cell of a grid.
    tokens = len(front.initial_rois)
    theirs = coarse_tokens(teacher, images, tokens=tokens, depth=truncated)
    prefix, wanted = theirs.split([theirs.shape[1] - tokens, tokens], dim=1)
    # Prefix tokens, RoIs and positions are fitted to the mean over images, what was sampled to the rest.
    if isinstance(student.cortex.prefix, PrefixTokens):
        student.cortex.prefix.tokens.copy_(prefix.mean(dim=0))
    front.initial_rois.copy_(roi_arithmetic.cells(tokens))
    _fit_positions(front.last_sampling.position, _on_grid(wanted.mean(dim=0)), front.initial_rois, seed)
    _fit_last_sampling(student, front, images, wanted)
    return float(_variance(wanted - _front_tokens(student, images)) / _variance(wanted))


@torch.no_grad()
def coarse_tokens(teacher: Teacher, images: Tensor, *, tokens: int, depth: int) -> Tensor:
    """The tokens of :class:`CoarseTokens` for images M x 3 x H x W in [0, 1]: M x (R+N) x D float32."""
    coarse = CoarseTokens(teacher, tokens=tokens, depth=depth).to(images.device)
    return torch.cat([coarse(part).float() for part in images.split(AT_ONCE)])


def ridge_regression(inputs: Tensor, targets: Tensor) -> LinearMap:
    """The linear map from inputs, rows x D_in, to targets, rows x D_out; inputs are standardised for its little ridge."""
    scale = inputs.std(dim=0) + 1e-4 * inputs.std() + torch.finfo(inputs.dtype).tiny
    centre_in, centre_out = inputs.mean(dim=0), targets.mean(dim=0)
    x, y = ((inputs - centre_in) / scale).double(), (targets - centre_out).double()
    products = x.T @ x
    products.diagonal().add_(RIDGE * products.diagonal().mean())
    weight = torch.linalg.solve(products, x.T @ y).T.to(inputs.dtype) / scale
    return LinearMap(weight, centre_out - weight @ centre_in)


def _fit_positions(position: RoIPosition, places: Tensor, rois: Tensor, seed: int) -> None:
    """Lets a position projection give what a map D x rows x columns has at the centre of a RoI."""
    generator = torch.Generator().manual_seed(seed)
    centre, size = (part.cpu().repeat(PLACES, 1) for part in roi_arithmetic.centre_and_size(rois))
    elsewhere = centre + 0.5 * size * torch.randn(centre.shape, generator=generator)
    other = size * (0.3 * torch.randn(size.shape, generator=generator)).exp()
    # As many draws of the RoIs themselves, where all of them begin.
    drawn = torch.cat([roi_arithmetic.from_centre_and_size(centre, size), roi_arithmetic.from_centre_and_size(elsewhere, other)])
    drawn = drawn.to(rois.device)
    encoding = position.norm(position.encode(drawn, position.width))
    _put(ridge_regression(encoding, read_map(places, drawn[None])[0]), position.projection)


def _fit_last_sampling(student: SparseFormer, front: FocusingTransformer, images: Tensor, wanted: Tensor) -> None:
    """Lets what the last sampling adds up, but for the positions, come as near as it can to M x N x D tokens."""
    mixing, widen = front.last_sampling.mixing.projection, front.widen
    with _recorded(mixing) as sampled, _recorded(widen) as focused:
        own = _front_tokens(student, images)
    inputs = torch.cat([torch.cat([given for given, _ in part]) for part in (sampled, focused)], dim=-1)
    given_now = torch.cat([gives for _, gives in sampled]) + torch.cat([gives for _, gives in focused])
    found = ridge_regression(inputs.flatten(0, 1), (wanted - (own - given_now)).flatten(0, 1))
    from_sampled, from_focused = found.weight.split([mixing.in_features, widen.in_features], dim=1)
    _put(LinearMap(from_sampled, found.bias), mixing)
    _put(LinearMap(from_focused, torch.zeros_like(found.bias)), widen)


def _on_grid(tokens: Tensor) -> Tensor:
    """N x D tokens of cells -> a map D x rows x columns; where rows differ in length, each place has its nearest cell's."""
    rows, columns = roi_arithmetic.grid_of(len(tokens))
    centres, _ = roi_arithmetic.centre_and_size(roi_arithmetic.cells(len(tokens)).to(tokens.device))
    at, _ = roi_arithmetic.centre_and_size(roi_arithmetic.cells(rows * columns).to(tokens.device))
    return tokens[torch.cdist(at, centres).argmin(dim=1)].T.unflatten(1, (rows, columns))


def _front_tokens(student: SparseFormer, images: Tensor) -> Tensor:
    """The tokens that the front gives the cortex, M x N x D float32."""
    return torch.cat([student.focusing(student.normalise(part)).tokens.float() for part in images.split(AT_ONCE)])


def _variance(tokens: Tensor) -> Tensor:
    """The sum over channels of the variance over images and places."""
    return tokens.flatten(0, 1).var(dim=0).sum()


def _put(found: LinearMap, layer: nn.Linear) -> None:
    layer.weight.copy_(found.weight)
    layer.bias.copy_(found.bias)


@contextmanager
def _recorded(layer: nn.Linear) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Within it, what the layer is given and gives, call by call."""
    calls: list[tuple[Tensor, Tensor]] = []
    hook = layer.register_forward_hook(lambda _, given, gives: calls.append((given[0].float(), gives.float())))
    try:
        yield calls
    finally:
        hook.remove()


class MapFit(NamedTuple):
    """Kullback-Leibler divergences from the teacher's maps, in nats, on the images that were kept back."""

    divergence: float
    flat: float  # of a flat map, which is the start


def fit_map(student: SparseFormer, batches: Iterable[tuple[Tensor, Tensor]], *, seed: int = 0) -> MapFit:
    """Fits the selector of a student with a mixed-resolution front, in place; raises TypeError if it has another front.
    Batches have images B x 3 x H x W in [0, 1], M >= 2 in all, and the teacher's maps B x h x w; all on the student's device.
    """
    front = student.focusing
    if not isinstance(front, MixedResolutionFront):
        raise TypeError(f"a map is fitted for a mixed-resolution front, not for a {type(front).__name__}")
    selector = front.selector
    # What the selector sees does not learn: it is computed once, of the images and of the mirrored ones.
    parts = []
    with torch.no_grad():
        for images, maps in batches:
            pixels, shares = student.normalise(images).float(), shares_on(maps, selector.map_grid)
            for own, wanted in ((pixels, shares), (pixels.flip(-1), shares.flip(-1))):
                parts.append((*(seen.half() for seen in front.glance(front.patches(own))), wanted))
    columns = [torch.cat(column[::2] + column[1::2]) for column in zip(*parts, strict=True)]  # mirrored ones come last

    def divergence(rows: Tensor) -> Tensor:
        cells, detail, wanted = (column[rows].float() for column in columns)
        return map_divergence(selector(cells, detail).exp(), wanted)

    # Some images are kept back, to keep the state that is the nearest on them.
    count, generator = len(columns[0]) // 2, torch.Generator().manual_seed(seed)
    order = torch.arange(count, device=columns[0].device)
    is_kept_back = order % KEPT_BACK == min(KEPT_BACK, count) - 1
    to_learn, kept_back = torch.cat([order, order + count])[~is_kept_back.repeat(2)], order[is_kept_back]
    with torch.no_grad():
        flat = best = divergence(kept_back).item()
    state = copy.deepcopy(selector.state_dict())
    # It learns from batches of the others.
    steps = LOOKS * (min(max(round(STEPS_FOR_AN_IMAGE * count), FEWEST_STEPS), MOST_STEPS) // LOOKS)
    optimiser = torch.optim.AdamW(selector.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps, pct_start=0.1)
    for step in range(1, steps + 1):
        divergence(to_learn[torch.randint(len(to_learn), (AT_ONCE,), generator=generator)]).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        schedule.step()
        if step % (steps // LOOKS) == 0:
            with torch.no_grad():
                now = divergence(kept_back).item()
            if now < best:
                best, state = now, copy.deepcopy(selector.state_dict())
    selector.load_state_dict(state)
    return MapFit(best, flat)
