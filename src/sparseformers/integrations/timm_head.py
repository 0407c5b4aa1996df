"""The head of a SparseFormer in timm: pooling and a classifier that timm may take off and put on."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor, nn

from sparseformers.errors import ConfigError
from sparseformers.integrations.timm_settings import POOLINGS, head_name
from sparseformers.integrations.timm_weights import ConfiguredNetwork
from sparseformers.model import SparseFormer
from sparseformers.model.cortex import build_pooling
from sparseformers.model.start import start_linear


class NetworkWithHead(ConfiguredNetwork):
    """What comes after the cortex's blocks.

    The head is the classifier; a CLIP has none, and its projection is the head, as in timm's own CLIPs.

    Args:
        student: whose parts become this network's.
        drop_rate: dropout before the head, in training.
        open_shape: see :class:`ConfiguredNetwork`.
        own_head: see :class:`ConfiguredNetwork`.
    """

    def __init__(self, student: SparseFormer, *, drop_rate: float, open_shape: bool, own_head: bool) -> None:
        super().__init__(open_shape=open_shape, own_head=own_head)
        self.drop_rate = drop_rate
        self.head_drop = nn.Dropout(drop_rate)
        self.global_pool = "token"
        self.take(student)

    def take(self, student: SparseFormer) -> None:
        super().take(student)
        self._head_name = head_name(student.config.cortex)
        if self.global_pool:
            self.global_pool = next(pool for pool, name in POOLINGS.items() if name == student.config.cortex.pooling)

    @property
    def head_hidden_size(self) -> int:
        """Channels of what enters the head."""
        cortex = self.config.cortex
        return cortex.block.width if self._head_name == "projection" else cortex.embedding_width

    @property
    def num_classes(self) -> int:
        """Outputs of the head; 0 without one."""
        head = self.get_classifier()
        return head.out_features if isinstance(head, nn.Linear) else 0

    def get_classifier(self) -> nn.Module:
        """The head: a linear layer, or nothing but the identity."""
        return getattr(self.cortex, self._head_name) or nn.Identity()

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Puts a new head on.

        Args:
            num_classes: its outputs; 0 for none, so that ``forward`` gives what would have entered it.
            global_pool: ``token``, ``avg``, ``map`` (where the teacher pools so), or empty for all tokens; as it is by default.

        Raises:
            ConfigError: for a pooling that the network cannot have.
        """
        if global_pool is not None:
            self._set_pooling(global_pool)
        first = next(self.parameters())
        head = nn.Linear(self.head_hidden_size, num_classes, device=first.device, dtype=first.dtype) if num_classes else None
        if head is not None:
            start_linear(head.train(self.training))
        if self._head_name == "projection":
            self.cortex.projection = nn.Identity() if head is None else head
            self.note(projection=num_classes or None, projection_bias=head is not None)
        else:
            self.cortex.classifier = head
            self.note(classes=num_classes or None)

    def _set_pooling(self, pool: str) -> None:
        own = self.config.cortex.pooling
        if pool and pool not in POOLINGS:
            raise ConfigError(f"Tokens cannot be pooled by '{pool}'.", f"Use {', '.join(POOLINGS)}, or '' for all tokens.")
        if pool == "map" and own != "attention":
            raise ConfigError("Pooling by 'map' needs a teacher that pools so.", "Use token, avg, or '' for all tokens.")
        name = POOLINGS[pool] if pool else "average" if own == "attention" else own  # what pools no more needs no weights
        if name != own:
            self.note(pooling=name)
            self.cortex.pooling = build_pooling(self.config.cortex)
        self.global_pool = pool

    def note(self, **changes: Any) -> None:
        """Keeps the configuration true after a change of the cortex."""
        self.config = dataclasses.replace(self.config, cortex=dataclasses.replace(self.config.cortex, **changes))

    def pool(self, x: Tensor) -> Tensor:
        """Tokens B x T x D -> the pooled one B x D; the tokens as they are if ``global_pool`` is empty."""
        return self.cortex.pooling(x) if self.global_pool else x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens B x T x D of ``forward_features`` -> what the head says of them, or with ``pre_logits`` what enters it."""
        pooled = self.pool(x)
        pooled = self.cortex.norm(pooled) if self.config.cortex.pool_first else self.cortex.pooled_norm(pooled)
        if self._head_name == "classifier":
            pooled = self.cortex.projection(pooled)
        pooled = self.head_drop(pooled)
        return pooled if pre_logits else self.get_classifier()(pooled)
