"""Help, and how little of the package it takes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sparseformers.cli.bootstrap import Bootstrap
from sparseformers.cli.help import documented, parse
from sparseformers.cli.main import COMMANDS, main, overview
from sparseformers.settings import Mark, flag
from sparseformers.train.settings import BootstrapConfig, DataSettings, NetworkSettings, OptimisationSettings, RunSettings
from tests.cli.command import Command

NAMES = [name for commands in COMMANDS.values() for name in commands]
HEAVY = {"torch", "torchvision", "timm", "accelerate", "matplotlib", "jinja2", "transformers", "open_clip", "huggingface_hub"}
NEEDED = ["--teacher", "bundled", "--data", "photos", "--out", "run"]
SAID = {
    "embed": ("RUN_OR_MODEL DATA...", "FILE.names.txt", "_skipped.txt", "shard.tar/key.jpg"),
    "evaluate": (
        "Example: sparseformers evaluate runs/first --data photos/validation --shifts",
        "Example: sparseformers evaluate runs/first --data photos/validation --focus --masks photos/masks",
        "Example: sparseformers evaluate runs/clip --data photos --zero-shot --templates simple",
        "Example: sparseformers evaluate runs/clip --data photos --captions photos/captions.jsonl",
    ),
    "pack": ("Example: sparseformers pack photos shards --shard-size 256MB --resize 256",),
    "plan": ("--batch-size counts the images of all devices together",),
}
"""What the help of a command says besides an example."""


def outcomes(*commands: list[str]) -> list[tuple[list[str], str]]:
    """Which of the heavy libraries are loaded after each command line, one after the other in a process of their own, and
    what it printed.
    """
    code = f"""
import contextlib, io, json, sys
from sparseformers.cli.main import main
for arguments in json.loads({json.dumps(json.dumps(commands))}):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), contextlib.suppress(SystemExit):
        main(arguments)
    print(json.dumps([sorted({HEAVY!r} & sys.modules.keys()), said.getvalue().replace("│", " ").split()]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [(loaded, " ".join(said)) for loaded, said in map(json.loads, done.stdout.splitlines())]


def test_help_and_refusals__of_each_command_load_no_heavy_library() -> None:
    told: list[tuple[list[str], tuple[str, ...]]] = [(["--help"], ()), (["--version"], ()), (["wrong"], ())]
    for name in NAMES:
        told.append(([name, "--help"], (f"Example: sparseformers {name}", *SAID.get(name, ()))))
        told.append(([name, "--hepl"], (f"error: 'sparseformers {name}' has no option --hepl. Did you mean '--help'",)))
    for (words, parts), (loaded, said) in zip(told, outcomes(*(words for words, _ in told)), strict=True):
        assert loaded == [], words
        for part in parts:
            assert part in said, (words, part)


def test_import__loads_no_heavy_library_until_a_name_asks_for_it() -> None:
    code = f"""
import sys, sparseformers
before = {HEAVY!r} & sys.modules.keys()
sparseformers.SparseFormersError, sparseformers.EmbedConfig, sparseformers.BootstrapConfig
print(before, {HEAVY!r} & sys.modules.keys(), "load" in dir(sparseformers))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["set()", "set()", "True"]


def test_overview__a_line_for_each_command_in_groups_also_where_none_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 40
    assert list(COMMANDS) == ["make", "measure", "see", "use"]
    assert all(any(line.startswith(f"  {name} ") for line in lines) for name in NAMES)
    assert set(NAMES) == {path.stem for path in Path(sys.modules[main.__module__].__file__ or "").parent.glob("*.py")} - {
        *("__init__", "main", "help", "output")
    }
    assert main([]) == 2
    assert capsys.readouterr().out.strip() == overview().strip()


def test_bootstrap_help__one_line_for_each_common_option_and_the_names_of_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bootstrap", "--help"])
    lines = capsys.readouterr().out.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("expert"))
    options = [line for line in lines[:place] if line.startswith("  --")]
    assert 20 <= len(options) <= 30
    assert max(map(len, options)) <= 110
    groups = [line for line in lines if line in ("Teacher and network", "Data", "Optimisation", "Run", "This command")]
    assert len(groups) == 5
    rare = " ".join(lines[place + 1 :]).split()
    assert rare == [flag(name) for name in BootstrapConfig.marked(Mark.EXPERT)]
    named = {line.split()[0] for line in options} | set(rare)
    fields = [*BootstrapConfig.groups(), *Bootstrap.__dataclass_fields__]
    assert named == {flag(name) for name in fields} - {"--start", "--settings"}


def test_bootstrap_help_expert__explains_the_rare_ones(command: Command) -> None:
    printed = command("bootstrap", "--help-expert")
    for part in ("AdamW's weight decay", "Sampling points of each token", "network options", "optimisation options"):
        assert part in printed
    assert "--start" not in printed


def test_documented__every_setting_has_a_sentence() -> None:
    for group in (NetworkSettings, DataSettings, OptimisationSettings, RunSettings):
        texts = documented(group)
        assert set(texts) == set(group.__dataclass_fields__)  # type: ignore[attr-defined]
        assert all(text[0].isalnum() and text.endswith((".", '"')) for text in texts.values())


def test_parse__short_names_of_flags_whatever_the_group() -> None:
    command = parse(Bootstrap, "sparseformers bootstrap", [*NEEDED, "--lr", "1e-3", "--keep", "2", "--whiten", "False"])
    assert command.settings == BootstrapConfig.of(teacher="bundled", data=["photos"], lr=1e-3, keep=2, whiten=False)
    assert command.out == Path("run")
