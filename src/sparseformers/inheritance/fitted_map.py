"""A start for the mixed-resolution front: its selector fitted to the maps of the teacher's attention, before the first step.

A new selector gives a flat map. Fitted on some thousand images it tells most of where the teacher looks, in seconds, as only the
glance's tokens of each image are needed, and these are computed once. A tenth of the images is kept back to tell when to stop.

Legend: M images, G cells of the glance, D width.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor

from sparseformers.model import SparseFormer
from sparseformers.model.mixed_resolution import MixedResolutionFront
from sparseformers.model.selector import Selector, map_divergence, shares_on

AT_ONCE = 64  # images that are put through a network together, and images of a step
STEPS, STEPS_BETWEEN = 300, 30  # between two looks at the images that are kept back
RATE, WEIGHT_DECAY = 3e-3, 0.05
KEPT_BACK = 10  # one of so many images tells when to stop


class MapFit(NamedTuple):
    """Kullback-Leibler divergences from the teacher's maps, in nats, on the images that were kept back."""

    divergence: float
    flat: float  # of a flat map, which is the start


def fit_map(student: SparseFormer, images: Tensor, attention_maps: Tensor, *, seed: int = 0) -> MapFit:
    """Fits the selector of a student with a mixed-resolution front, in place; raises TypeError if it has another front.

    Images M x 3 x H x W in [0, 1], at least two, and the teacher's maps M x h x w; all on one device.
    """
    front = student.focusing
    if not isinstance(front, MixedResolutionFront):
        raise TypeError(f"a map is fitted for a mixed-resolution front, not for a {type(front).__name__}")
    selector = front.selector
    with torch.no_grad():
        cells = (front.cut(student.normalise(part).float(), front.config.glance) for part in images.split(AT_ONCE))
        glances = torch.cat([front.glance(part) for part in cells])
    wanted = shares_on(attention_maps, selector.map_grid)
    kept_back = torch.arange(len(glances), device=glances.device) % KEPT_BACK == min(KEPT_BACK, len(glances)) - 1
    to_learn, generator = (~kept_back).nonzero().squeeze(1), torch.Generator().manual_seed(seed)
    flat = best = _divergence(selector, glances[kept_back], wanted[kept_back])
    state = copy.deepcopy(selector.state_dict())
    optimiser = torch.optim.AdamW(selector.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS, pct_start=0.1)
    for step in range(1, STEPS + 1):
        rows = to_learn[torch.randint(len(to_learn), (AT_ONCE,), generator=generator)]
        map_divergence(selector(glances[rows]).exp(), wanted[rows]).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        schedule.step()
        if step % STEPS_BETWEEN == 0 and (now := _divergence(selector, glances[kept_back], wanted[kept_back])) < best:
            best, state = now, copy.deepcopy(selector.state_dict())
    selector.load_state_dict(state)
    return MapFit(best, flat)


@torch.no_grad()
def _divergence(selector: Selector, glances: Tensor, wanted: Tensor) -> float:
    return map_divergence(torch.cat([selector(part).exp() for part in glances.split(AT_ONCE)]), wanted).item()
