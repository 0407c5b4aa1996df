"""Fronts for inference: what does not depend on the image is computed once, here.

Before the papers' fronts have sampled anything, a token is a learnt vector, and so are its RoI, its sampling points and the
matrices that it mixes with. In the grid front these are RoIs, points and positions.
Legend: B batch, N latent tokens, P sampling points per token, C stem channels, F focusing width, D cortex width.
"""

from __future__ import annotations

from torch import Tensor, nn

from sparseformers import rois as roi_arithmetic
from sparseformers.model.focusing import FocusingState, FocusingTransformer
from sparseformers.model.front import FrontOutput, refuse_other_tokens
from sparseformers.model.grid import GridFront, read_map
from sparseformers.model.mixing import AdaptiveMixing, MixingMatrices
from sparseformers.model.original import OriginalFocusingTransformer
from sparseformers.model.sampling import BilinearSampling, SampledTokens
from sparseformers.model.sparseformer import Normalise


class FoldedSampling(nn.Module):
    """Bilinear sampling at fixed points, and mixing with fixed matrices.

    Args:
        mixing: what decodes; its generator is not needed any more.
        matrices: of N tokens, or of one where all tokens are still the same.
        tokens: 1 x N x F, what the decoded features are added to.
        points: 1 x N x P x 2, (x, y) in [0, 1] of the image.
        read: how the feature map is read.
    """

    channel: Tensor
    spatial: Tensor
    tokens: Tensor
    points: Tensor

    def __init__(
        self,
        mixing: AdaptiveMixing,
        matrices: MixingMatrices,
        *,
        tokens: Tensor,
        points: Tensor,
        read: BilinearSampling,
    ) -> None:
        super().__init__()
        self.mixing = mixing
        self.read = read
        self.register_buffer("channel", matrices.channel.contiguous())
        self.register_buffer("spatial", matrices.spatial.contiguous())
        self.register_buffer("tokens", tokens)
        self.register_buffer("points", points)

    def forward(self, features: Tensor) -> SampledTokens:
        """Feature map B x C x H x W -> tokens that have seen the image."""
        points = self.points.expand(features.shape[0], -1, -1, -1)
        sampled = self.read(features, points)
        return SampledTokens(self.tokens + self.mixing.decode(MixingMatrices(self.channel, self.spatial), sampled), points)


class FoldedFocusing(nn.Module):
    """The paper's front with its first sampling folded.

    Args:
        front: whose modules become part of this one.
    """

    rois: Tensor

    def __init__(self, front: FocusingTransformer) -> None:
        super().__init__()
        self.front = front
        sampling = front.layer.sampling
        rois = front.initial_rois.detach().float().unsqueeze(0)  # 1 x N x 4
        latent = front.token.detach() + front.stages[0].detach()  # 1 x F, the same for all tokens
        self.register_buffer("rois", rois)
        self.first_sampling = FoldedSampling(
            sampling.mixing,
            sampling.mixing.generator.matrices(latent),
            tokens=sampling.position(latent.unsqueeze(0), rois),
            points=sampling.sampling_points(latent.unsqueeze(0), rois),
            read=sampling.read,
        )

    def forward(self, images: Tensor, tokens: int | None = None) -> FrontOutput:
        """As :meth:`FocusingTransformer.forward`."""
        refuse_other_tokens(tokens, self.rois.shape[1])
        features = self.front.stem(images)
        rois = self.rois.expand(images.shape[0], -1, -1)
        return self.front.after_first(features, rois, self.front.layer.after_sampling(self.first_sampling(features), rois))


class FoldedOriginalFocusing(nn.Module):
    """The front of v1 with its first sampling folded, and the attention before that.

    Args:
        front: whose modules become part of this one.
    """

    rois: Tensor
    moved_rois: Tensor

    def __init__(self, front: OriginalFocusingTransformer) -> None:
        super().__init__()
        self.front = front
        layer, rois = front.layer, front.initial_rois.detach().float().unsqueeze(0)  # 1 x N x 4
        latent = layer.block.attend(front.token.detach().unsqueeze(0))  # 1 x N x F
        moved = layer.adjustment(latent, rois)
        self.register_buffer("rois", rois)
        self.register_buffer("moved_rois", moved)
        self.first_sampling = FoldedSampling(
            layer.sampling.mixing,
            layer.sampling.mixing.generator.matrices(latent),
            tokens=latent,
            points=layer.sampling.sampling_points(latent, moved),
            read=layer.sampling.read,
        )

    def forward(self, images: Tensor, tokens: int | None = None) -> FrontOutput:
        """As :meth:`OriginalFocusingTransformer.forward`."""
        refuse_other_tokens(tokens, self.rois.shape[1])
        features = self.front.stem(images)
        rois, moved = (each.expand(images.shape[0], -1, -1) for each in (self.rois, self.moved_rois))
        sampled = self.first_sampling(features)
        first = FocusingState(self.front.layer.block.feed_forward(sampled.tokens), moved, sampled.points)
        return self.front.after_first(features, rois, first)


class FoldedGrid(nn.Module):
    """The grid front as a resize, a convolution, and constants: images in [0, 1] to tokens, with the normalisation inside.

    The patches of cells of equal size are those of the image at one resolution, so that reading and patch embedding are a
    convolution whose kernel and stride are a patch. The normalisation goes into it: a resize keeps sums of one, and no pixel lies
    outside. Positions and biases are one tensor.

    Args:
        front: whose modules become part of this one.
        normalise: of the student.
        tokens: N.
    """

    cells: Tensor
    points: Tensor
    positions: Tensor

    def __init__(self, front: GridFront, normalise: Normalise, tokens: int) -> None:
        super().__init__()
        side = front.patch_size
        rows, columns = roi_arithmetic.grid_of(tokens)
        self.size = rows * side, columns * side
        self.resize, self.pre_norm, self.prefix = front.resize, front.pre_norm, front.prefix
        cells = roi_arithmetic.cells(tokens).to(front.cells.device).unsqueeze(0)  # 1 x N x 4
        weight = front.embedding.weight.detach()  # D x 3 x P x P
        bias = -(weight * (normalise.mean / normalise.std)).sum(dim=(1, 2, 3))
        bias = bias if front.embedding.bias is None else bias + front.embedding.bias.detach()
        self.embedding = nn.Conv2d(3, len(weight), kernel_size=side, stride=side, bias=False, device=weight.device)
        self.embedding.weight = nn.Parameter(weight / normalise.std, requires_grad=False)
        self.register_buffer("cells", cells)
        self.register_buffer("points", roi_arithmetic.regular_points(cells, side))
        self.register_buffer("positions", read_map(front.embedding.positions.detach(), cells) + bias)

    def forward(self, images: Tensor, tokens: int | None = None) -> FrontOutput:
        """As :meth:`GridFront.forward`, of images that are not normalised."""
        refuse_other_tokens(tokens, self.cells.shape[1])
        patches = self.embedding(self.resize(images.float(), self.size))  # B x D x rows x columns
        latent = self.pre_norm(patches.flatten(2).transpose(1, 2) + self.positions)
        rois = self.cells.expand(images.shape[0], -1, -1)
        return FrontOutput(self.prefix(latent), rois.unsqueeze(1), (self.points.expand(images.shape[0], -1, -1, -1),))
