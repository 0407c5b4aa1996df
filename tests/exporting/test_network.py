from typing import Literal

import pytest
import torch

from sparseformers.exporting import ExportConfig
from sparseformers.exporting.network import EmbeddingNetwork, GatheredSampling, network_of
from sparseformers.inference import fold_embedding
from sparseformers.model.sampling import BilinearSampling
from tests.exporting.students import FRONTS, student_of


@torch.no_grad()
@pytest.mark.parametrize(("front", "tokens"), [*((front, None) for front in FRONTS), ("grid", 9)])
def test_is_the_students_embedding(front: str, tokens: int | None) -> None:
    student = student_of(FRONTS[front])
    network = EmbeddingNetwork(student, tokens=tokens)
    for size in ((48, 48), (33, 70), (150, 200)):
        images = torch.rand(2, 3, *size)
        torch.testing.assert_close(network(images), student(images, tokens).embedding, rtol=0, atol=2e-5)
    assert "Portable" not in str(student)  # which was copied


def test_bfloat16__is_in_linear_layers_alone() -> None:
    student = student_of(FRONTS["focusing"])
    network = network_of(student, ExportConfig(format="openvino", precision="bf16"))
    dtypes = {name.rpartition(".")[2]: value.dtype for name, value in network.named_parameters() if "norm" in name}
    assert set(dtypes.values()) == {torch.float32}
    halved = [name for name, value in network.named_parameters() if value.dtype == torch.bfloat16]
    linear = sum(isinstance(module, torch.nn.Linear) for module in fold_embedding(student).modules())
    assert len([name for name in halved if name.endswith("weight")]) == linear
    images = torch.rand(2, 3, 48, 48)
    with torch.no_grad():
        expected, given = student(images).embedding, network(images)
    assert given.dtype == torch.float32
    assert 1e-6 < (given - expected).norm() / expected.norm() < 0.1
    assert all(value.dtype == torch.float32 for value in student.parameters())


def outside_too(*shape: int) -> torch.Tensor:
    """Points of which many lie outside the image, and some far from it."""
    generator = torch.Generator().manual_seed(0)
    return torch.cat([4 * torch.rand(*shape, generator=generator) - 1.5, 100 * torch.randn(*shape, generator=generator)], dim=1)


@pytest.mark.parametrize("outside", ["border", "zeros"])
def test_reads_what_pytorch_reads(outside: Literal["border", "zeros"]) -> None:
    for size in ((8, 8), (7, 12), (2, 5), (1, 1)):
        features, points = torch.randn(3, 5, *size), outside_too(3, 40, 4, 2)
        expected = BilinearSampling(outside)(features, points)
        torch.testing.assert_close(GatheredSampling(outside)(features, points), expected, rtol=0, atol=1e-4)


def test_keeps_the_precision_of_the_map() -> None:
    features, points = torch.randn(1, 2, 4, 4).bfloat16(), torch.rand(1, 3, 2, 2)
    given = GatheredSampling()(features, points)
    assert given.dtype == torch.bfloat16
    torch.testing.assert_close(given, BilinearSampling()(features, points), rtol=0, atol=0.02)


@pytest.mark.parametrize("front", ["focusing", "original"])
def test_is_in_the_files_of_other_runtimes_only(front: str) -> None:
    student = student_of(FRONTS[front])

    def sampled_by(format: Literal["onnx", "openvino", "torch-export"]) -> set[type]:
        modules = network_of(student, ExportConfig(format=format)).modules()
        return {type(module) for module in modules if isinstance(module, BilinearSampling)}

    assert sampled_by("onnx") == sampled_by("openvino") == {GatheredSampling}
    assert sampled_by("torch-export") == {BilinearSampling}
    assert not any(isinstance(module, GatheredSampling) for module in student.modules())  # which was copied
