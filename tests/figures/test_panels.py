"""Colours of tokens, and whether they stand out."""

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from sparseformers.figures import RoIPicture, draw_student, token_colours
from sparseformers.figures.panels import HALO
from sparseformers.rois import initial_grid, row_lengths

# How a colour looks with red-green blindness, in linear light (Vienot, Brettel and Mollon, 1999).
DEUTERANOPIA = np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]])
PROTANOPIA = np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]])


def test_each_token_has_a_colour_of_its_own() -> None:
    for tokens in (1, 2, 3, 7, 16, 48, 63, 81, 144):
        colours = token_colours(tokens)
        assert colours.shape == (tokens, 3)
        assert colours.min() >= 0
        assert colours.max() <= 1
        assert len(np.unique(colours.round(6), axis=0)) == tokens
        assert np.array_equal(colours, token_colours(tokens))
    with pytest.raises(ValueError, match="at least one token, not 0"):
        token_colours(0)


@pytest.mark.parametrize("vision", [np.eye(3), DEUTERANOPIA, PROTANOPIA], ids=["usual", "deuteranopia", "protanopia"])
def test_neighbours_on_the_grid_differ_for_all_kinds_of_vision(vision: np.ndarray) -> None:
    for tokens in (16, 48, 63):
        seen = (token_colours(tokens) ** 2.2 @ vision.T).clip(0, 1) ** (1 / 2.2)
        for distance in (1, max(row_lengths(tokens))):
            apart = np.linalg.norm(seen[distance:] - seen[:-distance], axis=1)
            assert np.median(apart) > 0.2


def test_colours_stand_out_from_their_halo() -> None:
    def luminance(colour: np.ndarray) -> np.ndarray:
        return colour**2.2 @ np.array([0.2126, 0.7152, 0.0722])

    for tokens in (1, 48, 63):
        contrast = (luminance(token_colours(tokens)) + 0.05) / (luminance(np.array(to_rgb(HALO))) + 0.05)
        assert contrast.min() > 4.5


class TestContrast:
    """Outlines and dots stand out from whatever lies below, by the contrast of WCAG 2 (from 1 to 21) at 150 pixels per inch."""

    @staticmethod
    def luminance(pixels: np.ndarray) -> np.ndarray:
        linear = np.where(pixels <= 0.04045, pixels / 12.92, ((pixels + 0.055) / 1.055) ** 2.4)
        return linear @ np.array([0.2126, 0.7152, 0.0722])

    def contrasts(self, axes: Axes, background: float, places: np.ndarray) -> np.ndarray:
        """The greatest contrast with the background within three pixels of each place, given in the photograph's pixels."""
        pixels = np.asarray(axes.figure.canvas.buffer_rgba())[..., :3] / 255
        brightness, ground = self.luminance(pixels), self.luminance(np.full(3, background))
        contrast = (np.maximum(brightness, ground) + 0.05) / (np.minimum(brightness, ground) + 0.05)
        across, up = axes.transData.transform(places).round().astype(int).T
        down = len(pixels) - 1 - up
        return np.array([contrast[y - 3 : y + 4, x - 3 : x + 4].max() for x, y in zip(across, down, strict=True)])

    @pytest.mark.parametrize(("background", "tokens"), [(0.0, 48), (0.25, 16), (0.5, 48), (0.75, 16), (1.0, 48)])
    def test_on_white_on_black_and_between(self, background: float, tokens: int) -> None:
        generator = torch.Generator().manual_seed(0)
        rois = 0.5 + (initial_grid(tokens) - 0.5) * 0.97
        points = 0.05 + 0.9 * torch.rand(tokens, 4, 2, generator=generator)
        drawn = RoIPicture(torch.full((3, 200, 300), background), rois[None], (points,), "a")
        figure = draw_student([drawn])
        figure.set_dpi(150)
        figure.canvas.draw()
        left, right, along = rois[:, [0]], rois[:, [2]], torch.linspace(0.1, 0.9, 9)
        heights = rois[:, [1]] + along * (rois[:, [3]] - rois[:, [1]])
        sides = torch.cat([torch.stack([side.expand_as(heights), heights], dim=-1).flatten(0, 1) for side in (left, right)])
        outlines = self.contrasts(figure.axes[1], background, sides.numpy() * [300, 200])
        assert np.median(outlines) > 2.7
        assert outlines.min() > 2
        dots = self.contrasts(figure.axes[2], background, points.flatten(0, 1).numpy() * [300, 200])
        assert dots.min() > 2.7
