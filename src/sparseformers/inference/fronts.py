"""Fronts for inference: what does not depend on the image is computed once, here.

Before the papers' fronts have sampled anything, a token is a learnt vector, and so are its RoI, its sampling points and the
matrices that it mixes with. In the grid front these are RoIs, points and positions.
Legend: B batch, N latent tokens, P sampling points per token, C stem channels, F focusing width, D cortex width.
"""

from __future__ import annotations

from torch import Tensor, nn

from sparseformers import rois as roi_arithmetic
from sparseformers.model.focusing import FocusingTransformer
from sparseformers.model.front import FrontOutput, refuse_other_tokens
from sparseformers.model.grid import GridFront, read_map
from sparseformers.model.mixing import MixingMatrices
from sparseformers.model.original import OriginalFocusingTransformer, OriginalSampling
from sparseformers.model.sampling import FeatureSampling, SampledTokens
from sparseformers.model.sparseformer import Normalise


class FoldedSampling(nn.Module):
    """Bilinear sampling at fixed points, and mixing with fixed matrices; modules of the given one become part of it.

    Points and matrices come from ``latent`` (1 x N x F, or 1 x 1 x F where all tokens are still the same) and RoIs 1 x N x 4;
    decoded features are added to ``tokens``, 1 x N x F.
    """

    channel: Tensor
    spatial: Tensor
    tokens: Tensor
    points: Tensor

    def __init__(self, sampling: FeatureSampling | OriginalSampling, latent: Tensor, rois: Tensor, tokens: Tensor) -> None:
        super().__init__()
        self.mixing, self.read = sampling.mixing, sampling.read
        matrices = self.mixing.generator.matrices(latent)
        self.register_buffer("channel", matrices.channel.contiguous())
        self.register_buffer("spatial", matrices.spatial.contiguous())
        self.register_buffer("tokens", tokens)
        self.register_buffer("points", sampling.sampling_points(latent, rois))

    def forward(self, features: Tensor) -> SampledTokens:
        """Feature map B x C x H x W -> tokens that have seen the image."""
        points = self.points.expand(features.shape[0], -1, -1, -1)
        sampled = self.read(features, points)  # B x N x P x C
        return SampledTokens(self.tokens + self.mixing.decode(MixingMatrices(self.channel, self.spatial), sampled), points)


class FoldedFocusing(nn.Module):
    """One of the papers' fronts, which becomes part of it, with the first sampling folded; in v1 with what is before that."""

    rois: Tensor
    sampled_rois: Tensor

    def __init__(self, front: FocusingTransformer | OriginalFocusingTransformer) -> None:
        super().__init__()
        self.front = front
        layer, token = front.layer, front.token.detach().unsqueeze(0)
        rois = front.initial_rois.detach().float().unsqueeze(0)  # 1 x N x 4
        self.register_buffer("rois", rois)
        if isinstance(front, OriginalFocusingTransformer):
            latent = tokens = layer.block.attend(token)  # 1 x N x F
            rois = front.layer.adjustment(latent, rois)
        else:
            latent = token + front.stages[0].detach()  # 1 x 1 x F, the same for all tokens
            tokens = front.layer.sampling.position(latent, rois)
        self.register_buffer("sampled_rois", rois)
        self.first_sampling = FoldedSampling(layer.sampling, latent, rois, tokens)

    def forward(self, images: Tensor, tokens: int | None = None) -> FrontOutput:
        """As :meth:`FocusingTransformer.forward`."""
        refuse_other_tokens(tokens, self.rois.shape[1])
        features = self.front.stem(images)
        rois, sampled_rois = (each.expand(images.shape[0], -1, -1) for each in (self.rois, self.sampled_rois))
        first = self.front.layer.after_sampling(self.first_sampling(features), sampled_rois)
        return self.front.after_first(features, rois, first)


class FoldedGrid(nn.Module):
    """The grid front as a resize, a convolution, and constants: images in [0, 1] to tokens, with the normalisation inside.

    The patches of cells of equal size are those of the image at one resolution, so that reading and patch embedding are a
    convolution whose kernel and stride are a patch. The normalisation goes into it: a resize keeps sums of one, and no pixel lies
    outside. Modules of the grid front become part of it.
    """

    cells: Tensor
    points: Tensor
    positions: Tensor

    def __init__(self, front: GridFront, normalise: Normalise, tokens: int) -> None:
        super().__init__()
        side = front.patch_size
        rows, columns = roi_arithmetic.grid_of(tokens, front.aspect)
        self.size = rows * side, columns * side
        self.resize, self.patch_norm = front.resize, front.embedding.norm
        self.pre_norm, self.prefix = front.pre_norm, front.prefix
        cells = front.cells_of(tokens).unsqueeze(0)  # 1 x N x 4
        weight = front.embedding.weight.detach()  # D x 3 x P x P
        bias = -(weight * (normalise.mean / normalise.std)).sum(dim=(1, 2, 3))
        bias = bias if front.embedding.bias is None else bias + front.embedding.bias.detach()
        self.embedding = nn.Conv2d(3, len(weight), kernel_size=side, stride=side, device=weight.device)
        self.embedding.weight = nn.Parameter(weight / normalise.std, requires_grad=False)
        self.embedding.bias = nn.Parameter(bias, requires_grad=False)
        self.register_buffer("cells", cells)
        self.register_buffer("points", roi_arithmetic.regular_points(cells, side))
        self.register_buffer("positions", read_map(front.embedding.positions.detach(), cells))

    def forward(self, images: Tensor, tokens: int | None = None) -> FrontOutput:
        """As :meth:`GridFront.forward`, of images that are not normalised."""
        refuse_other_tokens(tokens, self.cells.shape[1])
        patches = self.embedding(self.resize(images.float(), self.size))  # B x D x rows x columns
        latent = self.pre_norm(self.patch_norm(patches.flatten(2).transpose(1, 2)) + self.positions)
        rois = self.cells.expand(images.shape[0], -1, -1).unsqueeze(1)
        return FrontOutput(self.prefix(latent), rois, (self.points.expand(images.shape[0], -1, -1, -1),), fixed_rois=True)
