"""Bipartite soft matching: which tokens are so alike that one may stand for both.

After Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023, section 3; knows tensors only.
Legend: B batch, T tokens, D their width, K the width of keys, r merged tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def most_merged(tokens: int) -> int:
    """How many of so many tokens one matching can merge away: half of them."""
    return tokens // 2


def match(keys: Tensor, count: int, *, kept: int = 0) -> Tensor:
    """Groups tokens by the most similar pairs of a bipartite matching.

    Tokens are dealt alternately to two sets; each of the first proposes the one of the second to which its key has the
    highest cosine, and the ``count`` most similar of these pairs come together (several may meet in one token).

    Args:
        keys: B x T x K, what tokens are compared by.
        count: r, tokens to merge away, from 0 to half of those that may merge.
        kept: leading tokens that never merge (class token, registers).

    Returns:
        B x T, int64: the group of each token, 0 to T-r-1, in the order of the tokens that stay.

    Raises:
        ValueError: for a count that is not possible.
    """
    free = keys.shape[1] - kept
    if not 0 <= count <= most_merged(free):
        raise ValueError(f"of {free} tokens 0 to {most_merged(free)} can be merged, not {count}")
    if count == 0:  # a single token has no other to be compared with
        return torch.arange(kept + free, device=keys.device).expand(keys.shape[0], -1)
    keys = F.normalize(keys[:, kept:], dim=-1)
    similarity, partner = (keys[:, ::2] @ keys[:, 1::2].mT).max(dim=-1)  # B x ceil(free / 2)
    chosen = similarity.topk(count, dim=-1).indices
    merged = kept + 2 * chosen
    into = kept + 2 * partner.gather(1, chosen) + 1
    stays = torch.ones(keys.shape[0], kept + free, dtype=torch.bool, device=keys.device).scatter(1, merged, False)
    place = stays.cumsum(dim=1) - 1
    return place.scatter(1, merged, place.gather(1, into))


def merge(tokens: Tensor, sizes: Tensor, groups: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """One token for each group, the mean of its members weighted by their sizes.

    Args:
        tokens: B x T x D.
        sizes: B x T, how many patches each token stands for.
        groups: B x T, the group of each token.
        count: groups, G.

    Returns:
        Tokens B x G x D and their sizes B x G.
    """
    weighted = tokens * sizes.unsqueeze(-1)
    totals = sizes.new_zeros(sizes.shape[0], count).scatter_add(1, groups, sizes)
    sums = weighted.new_zeros(tokens.shape[0], count, tokens.shape[-1])
    sums = sums.scatter_add(1, groups.unsqueeze(-1).expand_as(weighted), weighted)
    return (sums / totals.unsqueeze(-1)).to(tokens.dtype), totals
