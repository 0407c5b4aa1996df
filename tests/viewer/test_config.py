import pytest

from sparseformers.errors import ConfigError
from sparseformers.viewer import ViewConfig


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("port", -1, r"--port must be in \[0, 65535\], not -1"),
        ("port", 65536, r"--port must be in \[0, 65535\], not 65536"),
        ("upload_megabytes", 0.0, "--upload-megabytes must be above 0, not 0.0"),
        ("megapixels", 0.0, r"--megapixels must be in \(0, 178\], not 0.0"),
        ("megapixels", 200.0, r"--megapixels must be in \(0, 178\], not 200.0"),
        ("uploads_kept", 0, "--uploads-kept must be at least 1, not 0"),
    ],
)
def test_out_of_range(option: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ViewConfig(run="a", **{option: value})  # type: ignore[arg-type]


def test_limits_in_bytes_and_pixels() -> None:
    config = ViewConfig(run="a", upload_megabytes=1.5, megapixels=0.25)
    assert (config.most_bytes, config.most_pixels) == (1_500_000, 250_000)
