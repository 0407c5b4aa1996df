"""State dicts of a SparseFormer in timm: the weights under a SparseFormer's own names, and the configuration beside them.

timm builds a network by its name and then loads weights into it, but a name does not say all: two networks with weights of the
same shapes may differ in position encoding, epsilon or activation. So a state dict says what network its weights belong to.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparseformers.config import SparseFormerConfig
from sparseformers.errors import ConfigError, WeightsError
from sparseformers.integrations.timm_settings import head_name, timm_settings
from sparseformers.model import SparseFormer
from sparseformers.saving import CONFIGURATION, configuration_tensor
from sparseformers.settings import from_dict
from sparseformers.teachers.base import check_fit

ANOTHER_RUN = "Make the network of the run that they come from: timm.create_model('sf_run', run=RUN)."


class ConfiguredNetwork(nn.Module):
    """The two parts of a SparseFormer under their own names, with a state dict that holds their configuration.

    Args:
        open_shape: whether the first weights that are loaded bring their configuration with them, whatever its shapes;
            otherwise they have to fit.
        own_head: whether the network keeps its head and pooling even so.
    """

    pretrained_cfg: dict[str, Any]

    def __init__(self, *, open_shape: bool, own_head: bool) -> None:
        super().__init__()
        self.open_shape, self.own_head = open_shape, own_head

    def take(self, student: SparseFormer) -> None:
        """Makes the parts of a student this network's."""
        self.config = student.config
        self.focusing, self.cortex = student.focusing, student.cortex

    def student(self) -> SparseFormer:
        """A copy as a SparseFormer, which takes images in [0, 1] and normalises for itself; in evaluation mode."""
        student = SparseFormer(self.config)
        student.load_state_dict(_tensors(self.state_dict()))
        return student.eval()

    def get_extra_state(self) -> Tensor:
        return configuration_tensor(self.config)

    def set_extra_state(self, state: Tensor) -> None:
        config = self._config_for(state)
        if config != self.config:
            self._become(config)
        self.open_shape = False

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As PyTorch's own, but for the errors.

        Args:
            state_dict: of such a network, or of a SparseFormer, which has no configuration and is taken for one of this
                network's.
            strict: whether names have to be the same.
            assign: whether to take its tensors themselves and not only their values.

        Raises:
            WeightsError: if it does not fit, with what to do.
        """
        state = {CONFIGURATION: self.get_extra_state(), **state_dict}
        if strict:
            self._check_fit(state)
        return super().load_state_dict(state, strict=strict, assign=assign)

    def _config_for(self, state: Tensor) -> SparseFormerConfig:
        """The configuration in a state dict, with this network's head where that is to stay."""
        try:
            config = from_dict(SparseFormerConfig, json.loads(bytes(state.to("cpu", torch.uint8).tolist())))
        except (ValueError, ConfigError) as error:
            raise WeightsError(f"The configuration beside the weights cannot be used: {error}", "Save them again.") from None
        if self.open_shape and not self.own_head:
            return config
        own = self.config.cortex
        kept = {name: getattr(own, name) for name in ("classes", "projection", "projection_bias", "pooling")}
        return dataclasses.replace(config, cortex=dataclasses.replace(config.cortex, **kept))

    def _check_fit(self, state: Mapping[str, Any]) -> None:
        """Raises WeightsError, with what to do, unless the weights are those that this network has or may take on."""
        own = _shapes(self.state_dict())
        expected, given = _shapes_of(self._config_for(state[CONFIGURATION])) if self.open_shape else own, _shapes(state)
        try:
            check_fit(expected, given, what="the checkpoint")
        except WeightsError as error:
            raise WeightsError(error.problem, self._remedy(expected, given)) from None

    def _remedy(self, expected: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]) -> str:
        """What to do about weights that do not fit."""
        if "initial_roi.weight" in given:
            return "These are the authors' names: ask for pretrained=True, or convert the file by sparseformers convert."
        head = f"cortex.{head_name(self.config.cortex)}."
        faults = {name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name)}
        if all(name.startswith(head) for name in faults):
            classes = given.get(f"{head}weight", (0,))[0]
            return f"Make the network with num_classes={classes}, as the checkpoint has, and call reset_classifier afterwards."
        return ANOTHER_RUN

    def _become(self, config: SparseFormerConfig) -> None:
        """Makes this the network of another configuration."""
        student, own = SparseFormer(config), dict(self.named_parameters())
        first = next(iter(own.values()))
        if _shapes(student.state_dict()) == _shapes(self.state_dict()):
            # The parameters stay the same objects: an optimiser may hold them already.
            learning = {name: value.requires_grad for name, value in own.items()}
            student.load_state_dict(_tensors(self.state_dict(keep_vars=True)), assign=True)
            for name, parameter in student.named_parameters():
                parameter.requires_grad_(learning[name])
        elif not self.open_shape:
            raise WeightsError("The weights are those of a network of other sizes.", ANOTHER_RUN)
        self.take(student.to(device=first.device, dtype=first.dtype).train(self.training))
        if hasattr(self, "pretrained_cfg"):
            self.pretrained_cfg.update(timm_settings(config))


def _tensors(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict without the configuration."""
    return {name: value for name, value in state.items() if name != CONFIGURATION}


def _shapes(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in _tensors(state).items()}


def _shapes_of(config: SparseFormerConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return _shapes(SparseFormer(config).state_dict())
