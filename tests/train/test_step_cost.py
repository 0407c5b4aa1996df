"""What a step must not do: compute gradients that nobody needs, keep what they would need, or wait for its device twice."""

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from sparseformers.evaluation import measure_training_cost
from sparseformers.model import SparseFormer
from sparseformers.train import BootstrapConfig
from sparseformers.train import step as step_module
from sparseformers.train.objective import Targets, alignment_loss
from sparseformers.train.step import TrainingStep, group_norms
from tests.train.test_step import batch_of, parts_of, step_of

WIDTH, TOKENS, IMAGES = 64, 5, 4  # of the tiny teacher, prefix and latent tokens of its students here, and images of a batch
UNIT = 4 * IMAGES * TOKENS * WIDTH  # bytes of one activation of the width of the tokens, float32
HIDDEN = 3  # width inside its feed-forward layers, in widths
FROZEN_BLOCK = 1 + 3 + 1 + 1 + HIDDEN
"""In units: inputs of both norms, queries with keys and values, what attention gave, and the input of the activation."""
TUNED_BLOCK = FROZEN_BLOCK + 1 + 1 + HIDDEN
"""The inputs of its linear layers besides; what attention gave is the input of one of them."""
SMALL = 0.2  # in units: what is kept of single numbers per token, such as those of norms


@pytest.fixture
def settings(shared_settings: BootstrapConfig) -> BootstrapConfig:
    return shared_settings.with_(tokens=4, lr=1e-5)


class Operators(TorchDispatchMode):
    """Names of all operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


class OnDevice(Tensor):
    """A tensor that notes when the host reads it, which is when a device that computes ahead is waited for."""

    reads: ClassVar[list[str]] = []

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(function, types, args, kwargs or {})
        if function.__name__ not in ("cpu", "item", "tolist", "numpy", "__bool__", "__float__"):
            return result
        cls.reads.append(function.__name__)
        return result.as_subclass(Tensor) if isinstance(result, Tensor) else result


class Kept:
    """Bytes that the forward pass keeps for the backward pass, weights left out, by the module that runs."""

    def __init__(self, student: SparseFormer) -> None:
        self.weights = {parameter.untyped_storage().data_ptr() for parameter in student.parameters()}
        self.seen: dict[int, Tensor] = {}
        self.bytes: dict[str, int] = {}
        self.at = "front"
        for index, block in enumerate(student.cortex.blocks):
            block.register_forward_pre_hook(lambda *_given, name=f"block {index}": setattr(self, "at", name))
        student.cortex.norm.register_forward_pre_hook(lambda *_given: setattr(self, "at", "end"))

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.weights and storage.data_ptr() not in self.seen:
            self.seen[storage.data_ptr()] = tensor
            self.bytes[self.at] = self.bytes.get(self.at, 0) + storage.nbytes()
        return tensor


def forward(step: TrainingStep) -> Tensor:
    """The loss of a batch whose targets are known."""
    images = batch_of(IMAGES).images
    return alignment_loss(step.student, step.teacher, images, step.autocast, Targets(torch.ones(IMAGES, WIDTH)))


def kept_by(step: TrainingStep, student: SparseFormer) -> dict[str, float]:
    """In units, by block."""
    kept = Kept(student)
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
        assert forward(step).requires_grad
    return {name: size / UNIT for name, size in kept.bytes.items()}


def multiply_adds_of_backward(step: TrainingStep) -> int:
    """For one image."""
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels are unknown to the counter
        loss = forward(step)
        with FlopCounterMode(display=False) as counter:
            loss.backward()
    return int(counter.get_total_flops()) // 2 // IMAGES


def leaves_of(loss: Tensor) -> set[int]:
    """Identities of the tensors at which the graph of a loss ends."""
    leaves: set[int] = set()
    seen: set[Any] = set()
    waiting = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting.extend(following for following, _ in node.next_functions)
        if hasattr(node, "variable"):
            leaves.add(id(node.variable))
    return leaves


def test_frozen_blocks__keep_what_a_gradient_passes_through_and_nothing_for_weights(settings: BootstrapConfig) -> None:
    parts = parts_of(settings)
    shares = parts.inheritance.provenance.shares
    assert (shares.tune, shares.freeze) == (4, 2)
    kept = kept_by(step_of(parts), parts.inheritance.student)
    for index in range(6):
        expected = TUNED_BLOCK if index < shares.tune else FROZEN_BLOCK
        assert expected <= kept[f"block {index}"] < expected + SMALL, index


def test_what_stands_before_all_that_learns__has_no_graph(settings: BootstrapConfig) -> None:
    parts = parts_of(settings)
    student = parts.inheritance.student
    student.focusing.requires_grad_(False)
    student.cortex.blocks[:2].requires_grad_(False)
    step = step_of(parts)
    kept = kept_by(step, student)
    assert not {"front", "block 0", "block 1"} & kept.keys()
    assert kept["block 2"] > FROZEN_BLOCK
    assert leaves_of(forward(step)) == {id(parameter) for parameter in student.parameters() if parameter.requires_grad}


@pytest.mark.parametrize("front", ["grid", "focusing"])
def test_the_graph__ends_at_what_learns_and_not_at_images_or_frozen_weights(settings: BootstrapConfig, front: str) -> None:
    parts = parts_of(settings.with_(front=front))
    student = parts.inheritance.student
    names = {id(parameter): name for name, parameter in student.named_parameters()}
    reached = {names[leaf] for leaf in leaves_of(forward(step_of(parts)))}
    assert reached == {name for name, parameter in student.named_parameters() if parameter.requires_grad}
    last = len(student.cortex.blocks) - 1
    assert not any(name.startswith((f"cortex.blocks.{last}.", "cortex.norm.")) for name in reached)


@pytest.mark.parametrize("front", ["grid", "focusing"])
def test_a_backward_pass__multiplies_for_no_frozen_weight(settings: BootstrapConfig, front: str) -> None:
    parts = parts_of(settings.with_(front=front))
    student = parts.inheritance.student
    step = step_of(parts)
    counted = multiply_adds_of_backward(step)
    assert counted == measure_training_cost(student, None, parts.size).student_backward
    frozen = parts.inheritance.provenance.shares.freeze
    student.cortex.blocks.requires_grad_(True)
    tokens = student.config.cortex.prefix_tokens + student.config.focusing.tokens
    of_weights = sum(module.weight.numel() for module in student.cortex.blocks[-1].modules() if isinstance(module, nn.Linear))
    assert multiply_adds_of_backward(step) - counted == frozen * tokens * of_weights


def test_learning__waits_for_the_device_once(settings: BootstrapConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def as_on_device(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
        return {name: norm.as_subclass(OnDevice) for name, norm in group_norms(optimiser).items()}

    monkeypatch.setattr(step_module, "group_norms", as_on_device)
    monkeypatch.setattr(OnDevice, "reads", [])
    step = step_of(parts_of(settings.with_(clip_norm=1e-3)))
    loss = forward(step)
    loss.backward()
    with Operators() as operators:
        figures = step.learn(loss.detach().as_subclass(OnDevice), IMAGES)
    assert OnDevice.reads == ["cpu"]
    assert (figures.outcome, set(figures.norms)) == ("made", {"tuned"})
    assert type(figures.loss) is type(figures.norm) is Tensor
    assert operators.names.count("_foreach_norm") == operators.names.count("_foreach_mul_") == 1
    assert operators.names.count("_fused_adamw_") == len(step.optimiser.param_groups)


def test_fused_adamw__steps_as_the_plain_one_does(settings: BootstrapConfig) -> None:
    weights: dict[bool, list[Tensor]] = {}
    for fused in (True, False):
        step = step_of(parts_of(settings))
        assert all(group["fused"] for group in step.optimiser.param_groups)
        for group in step.optimiser.param_groups:
            group["fused"] = fused
        for number in range(3):
            step(batch_of(IMAGES), rate=1.0, samples=IMAGES * number)
        weights[fused] = [parameter.detach() for group in step.optimiser.param_groups for parameter in group["params"]]
    for fused_one, plain in zip(*weights.values(), strict=True):
        torch.testing.assert_close(fused_one, plain, atol=1e-6, rtol=1e-5)
