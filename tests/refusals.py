"""What users are told when something is refused."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sparseformers.errors import SparseFormersError


@contextmanager
def refused(error: type[SparseFormersError], problem: str, remedy: str = "") -> Iterator[None]:
    """Checks that what is inside raises that error, whose sentences on what is wrong and on what to do hold these words."""
    with pytest.raises(error) as caught:
        yield
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy
