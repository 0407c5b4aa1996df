"""A finished run that tests of what reads runs share: of the paper's front, with hostile names among its held-out images."""

import os
from pathlib import Path

from sparseformers.train import RunFolder, bootstrap
from tests.tiny import write_images
from tests.train.runs import focusing, tiny_settings

HOSTILE = "<script>alert(1)<!--.jpg"
QUOTED = "\" onerror='alert(1)' $x$ & {{ 7 * 7 }}.jpg"
TURNED = "photo\u202egpj.exe.jpg"


def finish_run(folder: Path) -> RunFolder:
    """Trains in ``folder``/run: six steps, five measurements on six images, and one image that cannot be read."""
    evaluation = folder / "evaluation"
    for path, name in zip(write_images(evaluation, 5, seed=3), (HOSTILE, QUOTED, TURNED), strict=False):
        path.rename(evaluation / name)
    (evaluation / os.fsdecode(b"caf\xe9.jpg")).write_bytes((evaluation / QUOTED).read_bytes())
    (evaluation / "broken <b>.jpg").write_bytes(b"no photograph")
    settings = focusing(tiny_settings(folder)).with_(eval_data=(evaluation,), log_every=1, evaluations=4, lr=3e-3)
    bootstrap(settings, folder / "run")
    return RunFolder(folder / "run")
