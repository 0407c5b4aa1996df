import importlib
import inspect
import subprocess
import sys
import typing
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import sparseformers
from sparseformers.train.recipe import list_recipes
from tests.tiny import SIDE, write_images, write_teacher

ROOT = Path(__file__).resolve().parents[1]


def run_python(code: str, *, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_package_is_typed_and_the_command_installed() -> None:
    assert (Path(sparseformers.__file__).parent / "py.typed").is_file()
    (command,) = entry_points(group="console_scripts", name="sparseformers")
    assert command.value == "sparseformers.cli.main:main"


BESIDE_HOST_LIBRARIES = """
import sys
import sparseformers.model, sparseformers.rois, sparseformers.config, sparseformers.settings
assert not {"timm", "open_clip", "transformers", "onnx"} & sys.modules.keys()
import timm
assert len(timm.list_models("sf_*")) == 8
assert "Loader" in type(timm.__spec__.loader).__name__ and "import_hooks" not in type(timm.__loader__).__module__
from torchvision.transforms import v2
v2.Resize(8)
import sparseformers.import_hooks as hooks
before = list(sys.meta_path)
hooks.install()
assert sys.meta_path == before
"""


def test_the_core_needs_no_host_library_timm_knows_our_models_and_torchvision_can_be_imported(tmp_path: Path) -> None:
    run_python(BESIDE_HOST_LIBRARIES, folder=tmp_path)


OF_THE_TERMINAL = {"json", "dry_run", "browser", "set"}
"""Options that tell the command line how to print, or that a call has another way for."""


@pytest.mark.parametrize("name", ["bootstrap", "resume", "evaluate", "embed", "profile", "visualize", "export", "view"])
def test_public_calls__take_the_words_of_the_commands_options(name: str) -> None:
    kind = getattr(importlib.import_module(f"sparseformers.cli.{name}"), name.capitalize())
    parameters = inspect.signature(getattr(sparseformers, name)).parameters
    hints = typing.get_type_hints(kind, include_extras=True)
    settings = hints.pop("settings", None)
    words = {_word(field, hint) for field, hint in hints.items()} - OF_THE_TERMINAL
    if settings is not None and not any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        words |= set(settings.__origin__.__dataclass_fields__)
    assert words <= parameters.keys()


def _word(field: str, hint: typing.Any) -> str:
    """The word that a field of a command has on the command line."""
    return next((mark.name for mark in getattr(hint, "__metadata__", ()) if getattr(mark, "name", None)), field)


def test_bootstrap__words_that_do_not_fit(tmp_path: Path) -> None:
    for words, problem in (
        ({"data": "photos", "lr_rate": 1.0, "out": "run"}, r"unknown key 'lr_rate'\. Did you mean 'lr'"),
        ({"data": "photos"}, "No run folder was given"),
        ({"out": "run"}, "missing key 'data'"),
        ({"data": "photos", "out": "run", "recipe": "papper"}, "There is no recipe 'papper'"),
    ):
        with pytest.raises(sparseformers.SparseFormersError, match=problem):
            sparseformers.bootstrap(teacher="bundled", **words)  # type: ignore[arg-type]


def test_bootstrap_and_embed_and_export__by_words_alone(tmp_path: Path) -> None:
    photos, run = tmp_path / "photos", tmp_path / "run"
    write_images(photos, 8)
    short = {"image_size": SIDE, "tokens": 4, "batch_size": 4, "samples": 4, "holdout": 0.25, "evaluations": 1, "workers": 0}
    teacher = sparseformers.load_teacher(write_teacher(tmp_path / "teacher.safetensors"), image_size=SIDE)
    sparseformers.bootstrap(teacher=teacher, data=photos, out=run, precision="fp32", trackers=["none"], **short)
    (run / "README.md").unlink()  # without which it is not finished
    assert sparseformers.resume(run, teacher=teacher, keep=1).samples == 4
    index = tmp_path / "index.npy"
    assert sparseformers.embed(model=run, data=photos, out=index, workers=0, precision="fp32").rows == 8
    assert sparseformers.export(run, tmp_path / "model.safetensors", format="safetensors", images=2).files


@pytest.mark.slow
def test_the_wheel_of_the_sources_is_complete_and_runs_outside_the_checkout(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]  # the sources, and it of them
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("sparseformers/")}
        archive.extractall(tmp_path / "installed")
    source = ROOT / "src"
    modules = {path.relative_to(source).as_posix() for path in source.rglob("*.py")}
    page = {f"sparseformers/train/report/{name}" for name in ("template.html", "style.css")}
    assert packed >= modules | page | {"sparseformers/py.typed"}
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'installed')!r});"
        "from sparseformers.model import SparseFormer; from sparseformers.named import named_config;"
        "import sparseformers, torch; torch.set_default_device('meta'); SparseFormer(named_config('sf_base_clip'));"
        "from sparseformers.train.recipe import list_recipes, load_recipe, recipes_folder;"
        "print(sparseformers.__file__, recipes_folder(), *[load_recipe(name).name for name in list_recipes()])"
    )
    module, folder, *recipes = run_python(code, folder=tmp_path).split()
    assert all(Path(path).is_relative_to(tmp_path / "installed") for path in (module, folder))
    assert recipes == list_recipes()
