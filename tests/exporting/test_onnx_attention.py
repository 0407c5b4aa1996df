from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseformers.exporting.onnx_file import write_onnx


class Attending(nn.Module):
    """Images as their own queries, keys and values."""

    def __init__(self, scale: float | None, masked: bool) -> None:
        super().__init__()
        self.scale = scale
        self.mask = 5 * torch.randn(1, 1, 7, 7, generator=torch.Generator().manual_seed(0)) if masked else None

    def forward(self, images: Tensor) -> Tensor:
        """B x heads x T x C -> the same."""
        return F.scaled_dot_product_attention(3 * images, images, images + 1, attn_mask=self.mask, scale=self.scale)


@pytest.mark.parametrize(("scale", "masked"), [(None, False), (0.7, True)])
def test_is_pytorchs_for_any_batch(scale: float | None, masked: bool, tmp_path: Path) -> None:
    network, shape = Attending(scale, masked), {"images": {0: torch.export.Dim("batch", min=1)}}
    program = torch.export.export(network, (torch.rand(2, 3, 7, 5),), dynamic_shapes=shape)
    write_onnx(program, tmp_path / "out.onnx")
    names = {node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node}
    assert names <= {"MatMul", "Mul", "Add", "Transpose", "Softmax"}  # nothing that works out shapes
    session = onnxruntime.InferenceSession(tmp_path / "out.onnx", providers=["CPUExecutionProvider"])
    for batch in (1, 4):
        images = torch.randn(batch, 3, 7, 5)
        (given,) = session.run(None, {"images": images.numpy()})
        np.testing.assert_allclose(given, network(images).numpy(), rtol=0, atol=1e-5)


def test_refuses_what_it_does_not_write(tmp_path: Path) -> None:
    class Causal(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(images, images, images, is_causal=True)

    program = torch.export.export(Causal(), (torch.rand(2, 3, 7, 5),))
    with pytest.raises(torch.onnx.errors.OnnxExporterError):
        write_onnx(program, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()
