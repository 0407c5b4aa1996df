from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from sparseformers.figures import token_colours
from sparseformers.figures.panels import HALO
from sparseformers.rois import row_lengths

# How a colour looks with red-green blindness, in linear light (Vienot, Brettel and Mollon, 1999).
DEUTERANOPIA = np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]])
PROTANOPIA = np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]])


@pytest.mark.parametrize("tokens", [1, 2, 3, 7, 16, 48, 63, 81, 144])
def test_each_token_has_a_colour_of_its_own(tokens: int) -> None:
    colours = token_colours(tokens)
    assert colours.shape == (tokens, 3)
    assert colours.min() >= 0
    assert colours.max() <= 1
    assert len(np.unique(colours.round(6), axis=0)) == tokens
    assert np.array_equal(colours, token_colours(tokens))


@pytest.mark.parametrize("tokens", [16, 48, 63])
@pytest.mark.parametrize("vision", [np.eye(3), DEUTERANOPIA, PROTANOPIA], ids=["usual", "deuteranopia", "protanopia"])
def test_neighbours_on_the_grid_differ_for_all_kinds_of_vision(tokens: int, vision: np.ndarray) -> None:
    seen = (token_colours(tokens) ** 2.2 @ vision.T).clip(0, 1) ** (1 / 2.2)
    row = max(row_lengths(tokens))
    for distance in (1, row):
        apart = np.linalg.norm(seen[distance:] - seen[:-distance], axis=1)
        assert np.median(apart) > 0.2


@pytest.mark.parametrize("tokens", [1, 48, 63])
def test_colours_stand_out_from_their_halo(tokens: int) -> None:
    def luminance(colour: np.ndarray) -> np.ndarray:
        return colour**2.2 @ np.array([0.2126, 0.7152, 0.0722])

    contrast = (luminance(token_colours(tokens)) + 0.05) / (luminance(np.array(to_rgb(HALO))) + 0.05)
    assert contrast.min() > 4.5


def test_no_tokens_have_no_colours() -> None:
    with pytest.raises(ValueError, match="at least one token, not 0"):
        token_colours(0)
