import pytest
import torch
from torch import Tensor

from sparseformers.exporting.check import ExportCheckError, Probe, compare, require_agreement
from sparseformers.model import SparseFormer
from tests.exporting.students import student_of
from tests.model.small import grid_config


@pytest.fixture(scope="module")
def student() -> SparseFormer:
    return student_of(grid_config())


@pytest.fixture
def probes() -> list[Probe]:
    return [Probe(images, images) for images in (torch.rand(1, 3, 48, 48), torch.rand(3, 3, 40, 64))]


def test_compare__measures_the_worst_image(student: SparseFormer, probes: list[Probe]) -> None:
    shift = 0.25

    def file(images: Tensor) -> Tensor:
        embedding = student(images).embedding.detach().clone()
        if len(images) == 3:
            embedding[1] *= 1 + shift
        return embedding

    agreement = compare(file, student, probes)
    assert (agreement.images, agreement.batches, agreement.sizes) == (4, (1, 3), ((48, 48), (40, 64)))
    assert agreement.greatest_error == pytest.approx(shift, rel=1e-4)
    assert agreement.lowest_cosine == pytest.approx(1, abs=1e-6)  # which does not see lengths
    require_agreement(agreement, 0.26, what="file")
    with pytest.raises(ExportCheckError, match=r"differs from the student by 0.25.*tolerance of 0.2 .*Nothing was written"):
        require_agreement(agreement, 0.2, what="file")


def test_compare__refuses_what_fails_or_is_no_embedding(student: SparseFormer, probes: list[Probe]) -> None:
    def broken(images: Tensor) -> Tensor:
        raise RuntimeError("out of order")

    with pytest.raises(ExportCheckError, match=r"fails on images of 1 x 3 x 48 x 48 \(out of order\)"):
        compare(broken, student, probes)
    with pytest.raises(ExportCheckError, match="not 1 x 32 finite ones"):
        compare(lambda images: torch.full((len(images), 32), torch.nan), student, probes)
    with pytest.raises(ExportCheckError, match="gives 1 x 8 numbers"):
        compare(lambda images: torch.zeros(len(images), 8), student, probes)
