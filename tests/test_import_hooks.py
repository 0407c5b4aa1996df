from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
import sparseformers
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


def test_timm_knows_our_models_and_torchvision_can_be_imported() -> None:
    subprocess.run([sys.executable, "-c", CODE], check=True)
