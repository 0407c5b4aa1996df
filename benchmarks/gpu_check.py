"""``make gpu-check``: whether training, resuming, evaluating and exporting work on this machine's CUDA device, and how fast.

One page of output within 8 minutes; nothing is fetched: the teacher has random weights and the photographs are generated.
``--cpu`` runs the same steps in a small form without a device. Exit code 0, 1 if a step failed, 2 without a device.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

import sparseformers  # noqa: F401  # lets timm be imported beside any build of PyTorch

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ("apple", "bird")
NOT_DETERMINISTIC = re.compile(r"(\w+) does not have a deterministic implementation")


@dataclass(frozen=True)
class Sizes:
    """How large everything is."""

    device: str
    architecture: str
    side: int
    images: int
    batch_size: int
    steps: int
    batches: tuple[int, ...]
    compiler: str
    """The backend of ``torch.compile``."""
    seconds: float
    """No step begins after them."""


ON_CUDA = Sizes("cuda", "vit_base_patch16_224", 224, 512, 64, 40, (1, 16, 256), "inductor", 480)
ON_CPU = Sizes("cpu", "test_vit", 64, 24, 4, 8, (1, 2), "aot_eager", 120)


class CheckError(Exception):
    """A step did not give what it has to give."""


class Check:
    """The steps, which share a folder; each returns its figures or raises."""

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        self.folder, self.sizes = folder, sizes
        self.teacher = f"timm:{sizes.architecture}@{folder / 'teacher.safetensors'}"
        self.whole, self.killed = folder / "whole", folder / "killed"
        self.end = time.monotonic() + sizes.seconds

    def steps(self) -> dict[str, Callable[[], str]]:
        """All steps by name, in order."""
        return {
            "teacher and images": self.prepare,
            "bootstrap": self.bootstrap,
            "kill": self.kill,
            "resume, bit-equal": self.resume,
            "evaluate": self.evaluate,
            "export, torch.export": lambda: self.export("torch-export", "student.pt2"),
            "export, ONNX": lambda: self.export("onnx", "student.onnx"),
            "speed": self.speed,
        }

    def prepare(self) -> str:
        """Writes a teacher with random weights, and photographs of two kinds of stripes with noise."""
        import timm

        torch.manual_seed(0)
        sizes = self.sizes
        network = timm.create_model(sizes.architecture, pretrained=False, num_classes=len(CLASSES), img_size=sizes.side)
        save_file({name: value.contiguous() for name, value in network.state_dict().items()}, self.folder / "teacher.safetensors")
        generator = np.random.default_rng(0)
        place = np.arange(sizes.side + 32) / (sizes.side + 32)
        for number in range(sizes.images):
            kind, part = number % 2, "test" if number % 4 > 1 else "train"
            turn, phase = generator.uniform(2, 30), generator.uniform(0, 6.3)
            stripes = np.sin(place[:, None] * (8 + 12 * kind) + place[None] * turn + phase)
            colours = 127 + 90 * stripes[..., None] * generator.uniform(0.3, 1, 3)
            noisy = (colours + generator.normal(0, 12, colours.shape)).clip(0, 255).astype(np.uint8)
            path = self.folder / "photographs" / part / CLASSES[kind] / f"{number:04}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noisy).save(path)
        return f"{sizes.architecture} with random weights, {sizes.images} photographs"

    def bootstrap(self) -> str:
        """Trains without a break, compiled where the compiler is inductor."""
        self._finish(*self._bootstrap(self.whole), log=self.whole.with_suffix(".log"))
        entries = [json.loads(line) for line in (self.whole / "metrics.jsonl").read_text().splitlines()]
        steps = [entry for entry in entries if "images_per_second" in entry]
        cosines = [entry["centred_cosine"] for entry in entries if entry["kind"] == "held_out"]
        peak = max((entry.get("peak_memory_gib") or 0 for entry in steps), default=0)
        told = f"{statistics.median(entry['images_per_second'] for entry in steps):,.0f} images/s, peak {peak:.2f} GiB"
        return f"bf16, {told}, held-out centred cosine {cosines[0]:.3f} to {cosines[-1]:.3f}"

    def kill(self) -> str:
        """Starts the same training and kills it by SIGKILL after its first checkpoint."""
        process = self._start(*self._bootstrap(self.killed), log=self.killed.with_suffix(".log"))
        while not (found := [*(self.killed / "checkpoints").glob("step-*")]):
            if process.poll() is not None or time.monotonic() > self.end:
                process.kill()
                raise CheckError(f"no checkpoint appeared: {_last_line(self.killed.with_suffix('.log'))}")
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)  # with the processes that read images
        if process.wait() != -signal.SIGKILL:
            raise CheckError("it ended before it could be killed")
        return f"SIGKILL after {found[0].name}"

    def resume(self) -> str:
        """Goes on with the killed training, and compares its end with the uninterrupted one's, bit by bit."""
        self._finish("resume", str(self.killed), log=self.killed.with_suffix(".log"))
        whole, killed = (load_file(folder / "model.safetensors") for folder in (self.whole, self.killed))
        if whole.keys() != killed.keys():
            raise CheckError("the two models have different parameters")
        differing = [name for name in whole if not torch.equal(whole[name], killed[name])]
        log = "".join(path.with_suffix(".log").read_text() for path in (self.whole, self.killed))
        loose = ", ".join(sorted(set(NOT_DETERMINISTIC.findall(log))))
        aside = f"; PyTorch has no deterministic form of {loose}" if loose else ""
        if differing:
            error = max(float((whole[name].float() - killed[name].float()).abs().max()) for name in differing)
            raise CheckError(f"{len(differing)} of {len(whole)} tensors differ, by {error:.2g} at most{aside}")
        return f"{len(whole)} tensors equal to the last bit{aside}"

    def evaluate(self) -> str:
        """Measures the student on the photographs' class folders."""
        found = _command("evaluate", self.whole, "--data", self.folder / "photographs", "--json")
        alignment = found["alignment"]
        return f"centred cosine {alignment['centred_cosine']:.3f}, k-NN of the teacher's index {found['knn_drop_in']:.0%}"

    def export(self, format: str, name: str) -> str:
        """Exports the student, which compares the file with it."""
        if format == "onnx" and any(importlib.util.find_spec(each) is None for each in ("onnx", "onnxruntime", "onnxscript")):
            return "left out: onnx, onnxruntime and onnxscript are not all installed"
        path = self.folder / name
        _command("export", self.whole, path, "--format", format, "--data", self.folder / "photographs", "--json")
        return f"{path.stat().st_size / 1e6:.1f} MB, and its embeddings are the student's"

    def speed(self) -> str:
        """Times student and teacher in bf16, eager and compiled, at each batch size."""
        from sparseformers.inheritance import inherit
        from sparseformers.teachers import load_teacher

        teacher = load_teacher(self.teacher, image_size=self.sizes.side)
        student = inherit(teacher, front="grid").student
        networks = {"student": student, "teacher": teacher}
        found: dict[tuple[str, str, int], tuple[float, float]] = {}
        for mode in ("eager", "compiled"):
            for batch in self.sizes.batches:
                for name, network in networks.items():
                    if time.monotonic() < self.end:
                        found[name, mode, batch] = self._timed(network, batch, compiled=mode == "compiled")
        rows = [f"{'bf16':20}{'batch':>6}{'ms':>10}{'images/s':>11}{'x teacher':>11}{'peak GiB':>10}"]
        for (name, mode, batch), (seconds, gibibytes) in sorted(found.items(), key=lambda each: (each[0][1], each[0][2])):
            beside = found.get(("teacher", mode, batch))
            ratio = f"{beside[0] / seconds:.2f}" if beside else ""
            row = f"{name + ', ' + mode:20}{batch:>6}{1000 * seconds:>10.2f}{batch / seconds:>11,.0f}{ratio:>11}"
            rows.append(row + (f"{gibibytes:>10.2f}" if gibibytes else ""))
        table = "\n".join(f"        {row}" for row in rows)
        if len(found) < 4 * len(self.sizes.batches):
            raise CheckError(f"there was no time for all of it\n{table}")
        return f"inherited student beside its teacher\n{table}"

    def _timed(self, network: nn.Module, batch: int, *, compiled: bool) -> tuple[float, float]:
        """Median seconds of a pass, and GiB at its peak."""
        device, on_cuda = torch.device(self.sizes.device), self.sizes.device == "cuda"
        held = torch.cuda.memory_allocated() if on_cuda else 0
        network = network.to(device).eval().requires_grad_(False)
        run = torch.compile(network, backend=self.sizes.compiler, dynamic=False) if compiled else network
        images = torch.rand(batch, 3, self.sizes.side, self.sizes.side, device=device)
        taken: list[float] = []
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
            for turn in range(13):
                if turn == 3 and on_cuda:  # the first passes compile and warm up
                    torch.cuda.reset_peak_memory_stats()
                start = time.perf_counter()
                run(images)
                if on_cuda:
                    torch.cuda.synchronize()
                taken.append(time.perf_counter() - start)
        torch.compiler.reset()
        network.cpu()
        peak = torch.cuda.max_memory_allocated() - held if on_cuda else 0
        return statistics.median(taken[3:]), peak / 2**30

    def _bootstrap(self, out: Path) -> list[str]:
        """The command line of a training."""
        sizes, source = self.sizes, f"--teacher {self.teacher} --data {self.folder}/photographs/train"
        length = f"--batch-size {sizes.batch_size} --samples {sizes.batch_size * sizes.steps} --precision bf16 --evaluations 2"
        saved = f"--checkpoint-every {sizes.steps // 4}steps --log-every {sizes.steps // 8} --trackers none"
        asked = f"bootstrap {source} --out {out} --image-size {sizes.side} {length} {saved}"
        return [*asked.split(), *(["--compile"] if sizes.compiler == "inductor" else [])]

    def _start(self, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
        """Runs a command of the package in a process of its own, by deterministic algorithms as far as PyTorch has them."""
        environment = {
            **os.environ,
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
            "HF_HUB_OFFLINE": "1",
            # All trainings run the kernels that the first one chose: another choice adds up in another order.
            "TORCHINDUCTOR_CACHE_DIR": str(self.folder / "compiled"),
            **({"CUDA_VISIBLE_DEVICES": ""} if self.sizes.device == "cpu" else {}),
        }
        command = [sys.executable, "-m", "benchmarks.gpu_check", "--child", *arguments]
        with log.open("ab") as output:
            return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True)

    def _finish(self, *arguments: str, log: Path) -> None:
        """Runs a command to its end, but not past the end of the time."""
        process = self._start(*arguments, log=log)
        try:
            code = process.wait(max(1.0, self.end - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise CheckError("it took too long and was ended") from None
        if code:
            raise CheckError(f"exit code {code}: {_last_line(log)}")


def _command(*arguments: object) -> dict[str, Any]:
    """What a command of the package prints as JSON, run in this process."""
    from sparseformers.cli.main import main

    printed, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        code = main([str(argument) for argument in arguments])
    if code:
        raise CheckError(f"exit code {code}: {' '.join(said.getvalue().split())[-300:]}")
    return dict(json.loads(printed.getvalue()))


def _child(arguments: Sequence[str]) -> int:
    """A command of the package with deterministic algorithms, warning of what has none."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    from sparseformers.cli.main import main

    return main(arguments)


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.exists() else []
    return lines[-1][:300] if lines else "it said nothing"


def run(sizes: Sizes, folder: Path) -> Iterator[tuple[bool, str]]:
    """Runs every step, whatever becomes of those before it; gives whether it went well, and its line."""
    check = Check(folder, sizes)
    for name, step in check.steps().items():
        start = time.monotonic()
        try:
            if start > check.end:
                raise CheckError("left out: the time was over")
            well, told = True, step()
        except Exception as error:  # whatever libraries raise: the other steps are to be seen, too
            well, told = False, str(error) if isinstance(error, CheckError) else f"{type(error).__name__}: {error}"
        yield well, f"{'ok' if well else 'FAILED':7} {time.monotonic() - start:6.1f} s  {name:21} {told}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the check and prints its page."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["--child"]:
        return _child(given[1:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__)
    parser.add_argument("--cpu", action="store_true", help="the small form, on the CPU")
    cpu = parser.parse_args(given).cpu
    if not cpu and not torch.cuda.is_available():
        print("gpu-check: PyTorch sees no CUDA device on this machine; --cpu runs the small form without one.", file=sys.stderr)
        return 2
    sizes = ON_CPU if cpu else ON_CUDA
    start, failed = time.monotonic(), 0
    machine = platform.machine() if cpu else f"{torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}"
    print(f"gpu-check on {machine}, torch {torch.__version__}", flush=True)
    with tempfile.TemporaryDirectory(prefix="sparseformers-gpu-check-") as folder:
        for well, line in run(sizes, Path(folder)):
            failed += not well
            print(line, flush=True)
    print(f"{failed or 'no'} step{'' if failed == 1 else 's'} failed, {time.monotonic() - start:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
