from __future__ import annotations

import subprocess
import sys


def test_import_torchvision__leaves_transforms_usable() -> None:
    code = (
        "from sparseformers.torchvision_guard import import_torchvision; import_torchvision(); import_torchvision()\n"
        "from torchvision.transforms import v2; import timm; v2.Resize(8)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
