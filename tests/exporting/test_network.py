import pytest
import torch

from sparseformers.exporting import ExportConfig
from sparseformers.exporting.network import EmbeddingNetwork, network_of
from sparseformers.inference import fold_embedding
from tests.exporting.students import FRONTS, student_of


@pytest.mark.parametrize(("front", "tokens"), [*((front, None) for front in FRONTS), ("grid", 9)])
@pytest.mark.parametrize("size", [(48, 48), (33, 70), (150, 200)])
def test_is_the_students_embedding(front: str, tokens: int | None, size: tuple[int, int]) -> None:
    student = student_of(FRONTS[front])
    images = torch.rand(2, 3, *size)
    with torch.no_grad():
        expected = student(images, tokens).embedding
        torch.testing.assert_close(EmbeddingNetwork(student, tokens=tokens)(images), expected, rtol=0, atol=2e-5)
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
