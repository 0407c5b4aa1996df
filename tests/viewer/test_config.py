from sparseformers.errors import ConfigError
from sparseformers.viewer import ViewConfig
from tests.refusals import refused


def test_limits() -> None:
    for option, value, range_ in (
        ("port", -1, "in [0, 65535]"),
        ("port", 65536, "in [0, 65535]"),
        ("upload_megabytes", 0.0, "above 0"),
        ("megapixels", 0.0, "in (0, 178]"),
        ("megapixels", 200.0, "in (0, 178]"),
        ("uploads_kept", 0, "at least 1"),
    ):
        with refused(ConfigError, f"--{option.replace('_', '-')} must be {range_}, not {value}."):
            ViewConfig(run="a", **{option: value})  # type: ignore[arg-type]
    config = ViewConfig(run="a", upload_megabytes=1.5, megapixels=0.25)
    assert (config.most_bytes, config.most_pixels) == (1_500_000, 250_000)
