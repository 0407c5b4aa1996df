from pathlib import Path

import pytest

from sparseformers.errors import ConfigError
from sparseformers.settings import Mark, to_dict
from sparseformers.train import BootstrapConfig
from sparseformers.train.lengths import Budget
from sparseformers.train.settings import read_settings, read_size
from tests.refusals import refused


def settings(**options: object) -> BootstrapConfig:
    return BootstrapConfig.of(**{"teacher": "bundled", "data": (Path("photos"),), **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": 0}, "--tokens must be at least 1, not 0"),
        ({"batch_size": 0}, "--batch-size must be at least 1"),
        ({"holdout": 1.0}, r"--holdout must be in \[0, 1\)"),
        ({"holdout": -0.1}, r"--holdout must be in \[0, 1\)"),
        ({"lr": 0.0}, "--lr must be above 0"),
        ({"lr": float("nan")}, "--lr must be above 0"),
        ({"minutes": -1.0}, "--minutes must be above 0"),
        ({"crop": 1.5}, r"--crop must be in \(0, 1\]"),
        ({"crop_scale": 0.0}, r"--crop-scale must be in \(0, 1\], not 0\.0\..*Use 0\.25, for example"),
        ({"crop_scale": 1.01}, r"--crop-scale must be in \(0, 1\], not 1\.01"),
        ({"image_size": 8}, "--image-size must be at least 32"),
        ({"data": ()}, "No folder with images was given"),
        ({"weight": (1.0, 2.0)}, "--weight was given 2 times and --data 1 times"),
        ({"weight": (0.0,)}, "--weight must be in"),
        ({"max_bad": 1.5}, r"--max-bad must be in \[0, 1\], not 1.5"),
        ({"max_pixels": 10**9}, "--max-pixels must be at most 178956970, not 1000000000"),
        ({"max_pixels": 0}, "--max-pixels must be at least 1"),
        ({"shuffle_shards": 0}, "--shuffle-shards must be at least 1"),
        ({"shard_cache_gb": 0.0}, "--shard-cache-gb must be above 0"),
        ({"checkpoint_every": "soon"}, "--checkpoint-every soon cannot be understood"),
        ({"keep": 0}, "--keep must be at least 1, not 0"),
        ({"epochs": 1.0, "minutes": 2.0}, "given 2 times"),
        ({"elastic": (9,), "front": "focusing"}, "--elastic 9 needs a front that can have any number of tokens"),
        ({"elastic": (0,)}, "--elastic must be at least 1, not 0"),
        ({"dense_layer": -2}, "--dense-layer -2 says which layer maps are of, and no maps are learnt"),
        ({"dense": True, "dense_layer": 0}, "--dense-layer must be in"),
        ({"start": "fitted"}, "The fitted start is for the paper's front.*--recipe fitted"),
    ],
)
def test_settings__out_of_range_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        settings(**options)
    assert caught.value.remedy


def test_settings__bounds_that_are_values() -> None:
    chosen = settings(holdout=0.0, crop_scale=1.0)
    assert (chosen.data.holdout, chosen.data.crop_scale) == (0.0, 1.0)


def test_with__changes_by_names_without_groups_and_nothing_else() -> None:
    changed = settings().with_(lr=1, keep=5)
    assert (changed.optimisation.lr, changed.run.keep) == (1.0, 5)
    assert changed.with_(lr=3e-5, keep=3) == settings()
    assert isinstance(changed, BootstrapConfig)


def test_groups__no_name_stands_in_two_of_them_and_marks_beside_their_fields() -> None:
    assert len(BootstrapConfig.groups()) == sum(len(group) for group in to_dict(settings()).values())
    assert "workers" in BootstrapConfig.marked(Mark.WITHOUT_EFFECT)
    assert "lr" not in BootstrapConfig.marked(Mark.WITHOUT_EFFECT) + BootstrapConfig.marked(Mark.EXPERT)


OLD = {"teacher": "bundled", "data": ["photos"], "lr": 1e-4, "front": "inherited", "checkpoint_minutes": 5}
"""Settings as version 0.1 wrote them, without groups."""


def test_read_settings__of_version_0_1_with_what_is_gone_switched_off() -> None:
    gone = {"ema": 0.0, "layer_decay": 1.0, "looks": 0, "rois_lr_ratio": 3.0, "dense_weight": 0.0, "token_weight": 0.0}
    gone["whiten"] = 1.0
    read, note = read_settings({**OLD, **gone}, where="settings")
    assert read == settings(front="grid", lr=1e-4, whiten=True, checkpoint_every="300s")
    assert "dropped, as they were off: ema, layer_decay, looks, rois_lr_ratio, dense_weight, token_weight" in note
    fitted = {"front": "bootstrapped", "start": "fitted", "dense_weight": 1.0, "whiten": 0.0}
    assert read_settings({**OLD, **fitted}, where="settings")[0].network.start == "fitted"
    grouped = to_dict(read)
    assert read_settings(grouped, where="settings") == (read, None)
    grouped["optimisation"]["token_weight"] = 0.0
    assert read_settings(grouped, where="settings") == (read, None)


@pytest.mark.parametrize("gone", [{"ema": 0.99}, {"layer_decay": 0.5}, {"looks": 2}, {"dense_weight": 1.0}, {"whiten": 0.5}])
def test_read_settings__of_version_0_1_that_are_gone_are_refused(gone: dict[str, float]) -> None:
    ((name, value),) = gone.items()
    with refused(ConfigError, f"have {name} = {value}, which this version no longer does", "sparseformers 0.1"):
        read_settings({**OLD, **gone}, where="settings")


def test_budget__samples_epochs_or_minutes() -> None:
    assert settings(samples=70).optimisation.budget(10) == Budget(samples=70, seconds=None)
    assert settings(epochs=2.5).optimisation.budget(10) == Budget(samples=25, seconds=None)
    assert settings(minutes=2.0).optimisation.budget(10) == Budget(samples=None, seconds=120.0)
    assert settings().optimisation.budget(10) == Budget(samples=100, seconds=None)


def test_image_size__of_the_command_line_and_of_python() -> None:
    for given, read in ((224, 224), ((256, 128), (256, 128)), ([256, 128], (256, 128))):
        chosen = settings(image_size=given)
        assert chosen.network.image_size == read
        assert BootstrapConfig.of(**chosen.flat()) == chosen
    with pytest.raises(ConfigError, match="--image-size must be at least 32, not 16"):
        settings(image_size=(64, 16))
    for text in ("256*128", "256x", "x128", "1x2x3", "", "-224", "224.5"):
        with pytest.raises(ValueError, match="neither a side in pixels nor a height and a width, such as 256x128"):
            read_size(text)


def test_teacher_weights__go_with_a_file() -> None:
    with pytest.raises(ConfigError, match="chooses between networks in a file, and the teacher 'bundled' is none"):
        settings(teacher_weights="ema")
    chosen = settings(teacher="timm:vit@a.pth", teacher_weights="ema")
    assert chosen.network.teacher == "timm:vit@a.pth#ema"
    assert BootstrapConfig.of(**chosen.flat()) == chosen
