from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import sparseformers

ROOT = Path(__file__).resolve().parents[1]


def run_python(code: str, *, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_package_is_typed() -> None:
    assert (Path(sparseformers.__file__).parent / "py.typed").is_file()


def test_the_command_is_installed() -> None:
    (command,) = entry_points(group="console_scripts", name="sparseformers")
    assert command.value == "sparseformers.cli.main:main"


def test_the_core_needs_no_host_library(tmp_path: Path) -> None:
    # Without what the package's own __init__ imports: that registers the models with timm.
    code = (
        "import importlib.util, sys, types; package = types.ModuleType('sparseformers');"
        "package.__path__ = list(importlib.util.find_spec('sparseformers').submodule_search_locations);"
        "sys.modules['sparseformers'] = package;"
        "import sparseformers.model, sparseformers.rois, sparseformers.config, sparseformers.settings;"
        "print(sorted({'timm', 'open_clip', 'transformers', 'onnx'} & sys.modules.keys()))"
    )
    assert run_python(code, folder=tmp_path) == "[]"


@pytest.mark.slow
def test_the_wheel_is_complete_and_runs_outside_the_checkout(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
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
        "print(sparseformers.__file__)"
    )
    assert Path(run_python(code, folder=tmp_path)).is_relative_to(tmp_path / "installed")
