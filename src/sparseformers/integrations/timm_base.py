"""The base of the network for timm: settings in timm's words, state dicts with a configuration, and the head."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sparseformers.config import CortexConfig, SparseFormerConfig
from sparseformers.errors import ConfigError, WeightsError
from sparseformers.model import SparseFormer
from sparseformers.model.cortex import DistilledCortexTransformer, build_pooling
from sparseformers.model.layers import start_linear
from sparseformers.model.sparseformer import SMALLEST_SIDE
from sparseformers.saving import CONFIGURATION, configuration_tensor, read_config
from sparseformers.teachers.base import check_fit
from sparseformers.teachers.timm_families import POOLINGS

ANOTHER_RUN = "Make the network of the run that they come from: timm.create_model('sf_run', run=RUN)."


def head_name(cortex: CortexConfig) -> Literal["classifier", "projection"]:
    """The part of the cortex that is timm's head: the classifier, or the projection of a CLIP, which has none."""
    return "projection" if cortex.projection is not None and cortex.classes is None else "classifier"


def timm_settings(config: SparseFormerConfig) -> dict[str, Any]:
    """A configuration as timm's ``pretrained_cfg``: the preprocessing, and the names of the first and last layer."""
    images, cortex = config.preprocessing, config.cortex
    return {
        "input_size": (3, *images.size),
        "min_input_size": (3, SMALLEST_SIDE, SMALLEST_SIDE),
        "fixed_input_size": False,
        "interpolation": images.interpolation,
        "crop_pct": images.crop,
        "crop_mode": "squash" if images.resize == "squash" else "center",
        "mean": images.mean,
        "std": images.std,
        "num_classes": (cortex.projection if head_name(cortex) == "projection" else cortex.classes) or 0,
        "pool_size": None,
        "first_conv": "focusing.embedding" if cortex.prefix_from_front else "focusing.stem.convolution",
        "classifier": f"cortex.{head_name(cortex)}",
    }


class ConfiguredNetwork(nn.Module):
    """Front and cortex of a SparseFormer under their own names, with a state dict that holds their configuration.

    timm builds a network by its name and then loads weights into it, but two networks with weights of the same shapes may still
    differ in position encoding, epsilon or activation. With ``open_shape`` the first weights that are loaded bring their
    configuration with them, whatever its shapes; with ``own_head`` the network keeps its head and pooling even so.
    """

    pretrained_cfg: dict[str, Any]

    def __init__(self, *, open_shape: bool, own_head: bool) -> None:
        super().__init__()
        self.open_shape, self.own_head = open_shape, own_head

    def take(self, student: SparseFormer) -> None:
        self.config = student.config
        self.focusing, self.cortex, self.read_out = student.focusing, student.cortex, student.read_out

    def student(self) -> SparseFormer:
        """Copies this network as a SparseFormer in evaluation mode, which takes images in [0, 1] and normalises them itself."""
        student = SparseFormer(self.config)
        student.load_state_dict(_weights(self.state_dict()))
        return student.eval()

    def get_extra_state(self) -> Tensor:
        return configuration_tensor(self.config)

    def set_extra_state(self, state: Tensor) -> None:
        if (config := self._config_for(state)) != self.config:
            self._become(config)
        self.open_shape = False

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Loads weights as PyTorch does, those without a configuration as this network's; raises WeightsError with a remedy."""
        state = {CONFIGURATION: self.get_extra_state(), **state_dict}
        if strict:
            expected, given = _weights(self.state_dict()), _weights(state)
            if self.open_shape:
                with torch.device("meta"):
                    expected = SparseFormer(self._config_for(state[CONFIGURATION])).state_dict()
            try:
                check_fit(expected, given, what="the checkpoint")
            except WeightsError as error:
                raise WeightsError(error.problem, self._remedy(expected, given)) from None
        return super().load_state_dict(state, strict=strict, assign=assign)

    def _config_for(self, state: Tensor) -> SparseFormerConfig:
        """The configuration in a state dict, with this network's own head where that is to stay."""
        try:
            config = read_config(json.loads(bytes(state.to("cpu", torch.uint8).tolist())), where="configuration")
        except (ValueError, ConfigError) as error:
            raise WeightsError(f"The configuration beside the weights cannot be used: {error}", "Save them again.") from None
        if self.open_shape and not self.own_head:
            return config
        kept = {name: getattr(self.config.cortex, name) for name in ("classes", "projection", "projection_bias", "pooling")}
        return dataclasses.replace(config, cortex=dataclasses.replace(config.cortex, **kept))

    def _remedy(self, expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
        if "initial_roi.weight" in given:
            return "These are the authors' names: ask for pretrained=True, or convert the file by sparseformers convert."
        head = f"cortex.{head_name(self.config.cortex)}."
        faults = _shapes(expected).items() ^ _shapes(given).items()
        if all(name.startswith(head) for name, _ in faults):
            classes = len(given[f"{head}weight"]) if f"{head}weight" in given else 0
            return f"Make the network with num_classes={classes}, as the checkpoint has, and call reset_classifier afterwards."
        return ANOTHER_RUN

    def _become(self, config: SparseFormerConfig) -> None:
        student, own = SparseFormer(config), dict(self.named_parameters())
        first = next(iter(own.values()))
        if _shapes(student.state_dict()) == _shapes(self.state_dict()):
            # The parameters stay the same objects: an optimiser may hold them already.
            learning = {name: value.requires_grad for name, value in own.items()}
            student.load_state_dict(_weights(self.state_dict(keep_vars=True)), assign=True)
            for name, parameter in student.named_parameters():
                parameter.requires_grad_(learning[name])
        elif not self.open_shape:
            raise WeightsError("The weights are those of a network of other sizes.", ANOTHER_RUN)
        self.take(student.to(device=first.device, dtype=first.dtype).train(self.training))
        if hasattr(self, "pretrained_cfg"):
            self.pretrained_cfg.update(timm_settings(config))


class NetworkWithHead(ConfiguredNetwork):
    """Pooling and a head (classifier, or a CLIP's projection) that timm may take off; see :class:`ConfiguredNetwork`."""

    def __init__(self, student: SparseFormer, *, drop_rate: float, open_shape: bool, own_head: bool) -> None:
        super().__init__(open_shape=open_shape, own_head=own_head)
        self.drop_rate, self.head_drop, self.global_pool = drop_rate, nn.Dropout(drop_rate), "token"
        self.take(student)

    def take(self, student: SparseFormer) -> None:
        super().take(student)
        self._head_name = head_name(student.config.cortex)
        if self.global_pool:
            self.global_pool = next(pool for pool, name in POOLINGS.items() if name == student.config.cortex.pooling)

    @property
    def head_hidden_size(self) -> int:
        cortex = self.config.cortex
        return cortex.block.width if self._head_name == "projection" else cortex.embedding_width

    @property
    def num_classes(self) -> int:
        """Outputs of the head; 0 without one."""
        head = self.get_classifier()
        return head.out_features if isinstance(head, nn.Linear) else 0

    def get_classifier(self) -> nn.Module:
        """The head: a linear layer, or the identity."""
        return getattr(self.cortex, self._head_name) or nn.Identity()

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Puts a new head on, of ``num_classes`` outputs; 0 for no head, so that ``forward`` returns what would have entered it.

        ``global_pool``: ``token``, ``avg``, ``map`` (if the teacher pools so; ConfigError), empty for all tokens, None as it is.
        """
        if global_pool is not None:
            self._set_pooling(global_pool)
        head = self._new_head(num_classes)
        if self._head_name == "projection":
            self.cortex.projection = nn.Identity() if head is None else head
            self.note(projection=num_classes or None, projection_bias=head is not None)
        else:
            self.cortex.classifier = head
            if isinstance(self.cortex, DistilledCortexTransformer):
                self.cortex.distilled_classifier = self._new_head(num_classes)
            self.note(classes=num_classes or None)

    def _new_head(self, num_classes: int) -> nn.Linear | None:
        if not num_classes:
            return None
        first = next(self.parameters())
        head = nn.Linear(self.head_hidden_size, num_classes, device=first.device, dtype=first.dtype)
        start_linear(head.train(self.training))
        return head

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
        """Writes changes of the cortex into the configuration."""
        self.config = dataclasses.replace(self.config, cortex=dataclasses.replace(self.config.cortex, **changes))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Applies the head to tokens B x T x D of ``forward_features``; with ``pre_logits``, returns its input instead."""
        pooled = self.cortex.pooling(x) if self.global_pool else x
        pooled = self.cortex.norm(pooled) if self.config.cortex.pool_first else self.cortex.pooled_norm(pooled)
        if self._head_name == "classifier":
            pooled = self.cortex.projection(pooled)
        pooled = self.head_drop(pooled)
        if pre_logits:
            return pooled
        logits = self.cortex.classify(pooled, self.head_drop(x)) if self.config.cortex.distilled else None
        return self.get_classifier()(pooled) if logits is None else logits


def _weights(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name != CONFIGURATION}


def _shapes(state: Mapping[str, Any]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in _weights(state).items()}
