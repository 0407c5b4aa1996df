"""Networks compiled for the training: one shape of batch, and one sentence where it cannot be done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sparseformers.errors import ConfigError

Output = TypeVar("Output")
COMPILERS = ("torch._dynamo", "torch._inductor", "torch._functorch")
"""Where the errors of ``torch.compile`` come from."""


class CompiledForBatches:
    """A network that is compiled for full batches; others, such as the last one, run as they are: compiling takes minutes.

    The network itself stays as it is, with its names, and what else uses it does not run compiled.

    Args:
        network: that takes B x 3 x H x W and perhaps a number of tokens, for each of which it is compiled once.
        batch: B of a full batch in this process.
    """

    def __init__(self, network: nn.Module, batch: int) -> None:
        self.network, self.batch = network, batch
        self.compiled: Callable[..., Any] = torch.compile(network, dynamic=False)

    def __call__(self, images: Tensor, *arguments: int | None) -> Any:
        """As the network."""
        run = self.compiled if len(images) == self.batch else self.network
        return run(images, *arguments)


@contextmanager
def compile_errors() -> Iterator[None]:
    """Turns a failure of ``torch.compile`` into an error that can be mended; it comes at the first batch, not before.

    Raises:
        ConfigError: for such a failure.
    """
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(COMPILERS):
            raise
        raise ConfigError(
            f"The networks cannot be compiled on this machine ({type(error).__name__}).", "Leave out --compile."
        ) from error
