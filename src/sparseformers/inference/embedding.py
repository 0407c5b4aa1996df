"""A student for those who want its embedding and nothing else."""

from __future__ import annotations

from torch import Tensor, nn

from sparseformers.inference.class_token import ClassTokenBlock
from sparseformers.inference.fold import FoldedSparseFormer, fold
from sparseformers.model import SparseFormer
from sparseformers.model.block import TransformerBlock
from sparseformers.model.cortex import TokenPooling
from sparseformers.model.sparseformer import check_images


class FoldedEmbedding(nn.Module):
    """From images to embeddings, for inference at one number of tokens; it compiles and exports as a student does.

    Args:
        folded: which may be taken apart.
    """

    def __init__(self, folded: FoldedSparseFormer) -> None:
        super().__init__()
        self.config = folded.config
        self.tokens = folded.tokens
        self.normalise, self.focusing, self.cortex = folded.normalise, folded.focusing, folded.cortex
        self.cortex.classifier = None
        blocks = self.cortex.blocks
        if isinstance(self.cortex.pooling, TokenPooling) and len(blocks):
            last = blocks[-1]
            assert isinstance(last, TransformerBlock)
            blocks[-1] = ClassTokenBlock(last)

    def forward(self, images: Tensor) -> Tensor:
        """Embeds images.

        Args:
            images: B x 3 x H x W in [0, 1], red-green-blue; any H and W from 32 up.

        Returns:
            B x D_out, float32.

        Raises:
            ValueError: as :meth:`SparseFormer.forward`.
        """
        check_images(images)
        focus = self.focusing(self.normalise(images), self.tokens)
        return self.cortex(focus.tokens).embedding.float()


def fold_embedding(student: SparseFormer, *, tokens: int | None = None) -> FoldedEmbedding:
    """A student for inference that gives embeddings alone: folded, and without the work that only other outputs need.

    That is the classifier; and where the class token is the embedding, as in CLIP, AugReg and DINOv2, all that the last block of
    the cortex does for the other tokens but their keys and values. Of SF-B's multiply-adds this is 8%.

    Args:
        student: is copied, and stays as it is.
        tokens: latent tokens N, if other than configured; only an inherited front has other numbers.

    Returns:
        In evaluation mode, on the student's device. Its embeddings are the student's but for the rounding of float32.

    Raises:
        ValueError: for a number of tokens that the front cannot give.
    """
    return FoldedEmbedding(fold(student, tokens=tokens)).eval()
