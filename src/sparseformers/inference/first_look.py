"""The first look of the papers' fronts, of which only the pixels depend on the image.

Before it has seen anything a token is a learnt vector, and so are its RoI, its sampling points and the matrices that it mixes
with. v1 has its tokens attend to each other and move their RoIs even before that. All of it is computed once, here.
Legend: B batch, N latent tokens, P sampling points per token, C stem channels, F focusing width.
"""

from __future__ import annotations

from torch import Tensor, nn

from sparseformers.model.focusing import Focus, FocusingStep, FocusingTransformer, refuse_other_tokens
from sparseformers.model.mixing import AdaptiveMixing, MixingMatrices, OriginalMixing
from sparseformers.model.original import OriginalFocusingTransformer
from sparseformers.model.sampling import BilinearSampling, Glimpse


class FirstLook(nn.Module):
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
        mixing: AdaptiveMixing | OriginalMixing,
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

    def forward(self, features: Tensor) -> Glimpse:
        """Feature map B x C x H x W -> a glimpse."""
        points = self.points.expand(features.shape[0], -1, -1, -1)
        sampled = self.read(features, points)
        return Glimpse(self.tokens + self.mixing.decode(MixingMatrices(self.channel, self.spatial), sampled), points)


class FoldedFocusing(nn.Module):
    """The bootstrapped front after its first look, which is folded.

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
        self.first_look = FirstLook(
            sampling.mixing,
            sampling.mixing.generator.matrices(latent),
            tokens=sampling.position(latent.unsqueeze(0), rois),
            points=sampling.sampling_points(latent.unsqueeze(0), rois),
            read=sampling.read,
        )

    def forward(self, images: Tensor, tokens: int | None = None) -> Focus:
        """As :meth:`FocusingTransformer.forward`."""
        refuse_other_tokens(tokens, self.rois.shape[1])
        features = self.front.stem(images)
        rois = self.rois.expand(images.shape[0], -1, -1)
        return self.front.go_on(features, rois, self.front.layer.after_look(self.first_look(features), rois))


class FoldedOriginalFocusing(nn.Module):
    """The front of v1 after its first look, which is folded with the attention before it.

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
        self.first_look = FirstLook(
            layer.sampling.mixing,
            layer.sampling.mixing.generator.matrices(latent),
            tokens=latent,
            points=layer.sampling.sampling_points(latent, moved),
            read=layer.sampling.read,
        )

    def forward(self, images: Tensor, tokens: int | None = None) -> Focus:
        """As :meth:`OriginalFocusingTransformer.forward`."""
        refuse_other_tokens(tokens, self.rois.shape[1])
        features = self.front.stem(images)
        rois, moved = (each.expand(images.shape[0], -1, -1) for each in (self.rois, self.moved_rois))
        glimpse = self.first_look(features)
        first = FocusingStep(self.front.layer.block.think(glimpse.tokens), moved, glimpse.points)
        return self.front.go_on(features, rois, first)
