"""A small student, for all tests of the page."""

from __future__ import annotations

import pytest

from tests.view.small import Small, make_small


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return make_small(tmp_path_factory.mktemp("view"))
