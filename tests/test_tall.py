"""Settings of teachers: the size of their images, which need not be square, and networks in a file."""

import pytest

from sparseformers.errors import ConfigError
from sparseformers.train import BootstrapConfig
from sparseformers.train.settings import read_size


def test_image_size__of_the_command_line_and_of_python() -> None:
    for given, read in ((224, 224), ((256, 128), (256, 128)), ([256, 128], (256, 128))):
        settings = BootstrapConfig.of(teacher="bundled", data=["photos"], image_size=given)
        assert settings.network.image_size == read
        assert BootstrapConfig.of(**settings.flat()) == settings
    with pytest.raises(ConfigError, match="--image-size must be at least 32, not 16"):
        BootstrapConfig.of(teacher="bundled", data=["photos"], image_size=(64, 16))


def test_read_size__says_what_it_takes() -> None:
    for text in ("256*128", "256x", "x128", "1x2x3", "", "-224", "224.5"):
        with pytest.raises(ValueError, match="neither a side in pixels nor a height and a width, such as 256x128"):
            read_size(text)


def test_teacher_weights__go_with_a_file() -> None:
    with pytest.raises(ConfigError, match="chooses between networks in a file, and the teacher 'bundled' is none"):
        BootstrapConfig.of(teacher="bundled", teacher_weights="ema", data=["photos"])
    settings = BootstrapConfig.of(teacher="timm:vit@a.pth", teacher_weights="ema", data=["photos"])
    assert settings.network.teacher == "timm:vit@a.pth#ema"
    assert BootstrapConfig.of(**settings.flat()) == settings
