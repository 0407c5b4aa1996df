import ast
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import pytest

import sparseformers
from sparseformers.cli.main import COMMANDS, main

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks/README.md", *ROOT.glob("docs/**/*.md")])
OF_TODAY = [page for page in PAGES if "lab" not in page.parts]
"""Pages on the present version; the lab book keeps the commands of its day."""


def blocks(page: Path, language: str) -> Iterator[str]:
    for found in re.finditer(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        yield found[1]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links__lead_somewhere() -> None:
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if target.startswith(("http:", "https:")):
                continue
            path, _, anchor = target.partition("#")
            there = page if not path else (page.parent / path).resolve()
            assert there.exists(), (page, target)
            assert not anchor or anchor in anchors(there), (page, target)


def test_python__is_python_and_calls_what_there_is() -> None:
    for page in OF_TODAY:
        for node in (node for block in blocks(page, "python") for node in ast.walk(ast.parse(block))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sparseformers":
                assert hasattr(sparseformers, node.attr), (page, node.attr)


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each ``sparseformers`` command on a page, without comments and what a shell does with it."""
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "sparseformers" in words and words[0] not in ("pip", "git"):
                arguments = words[words.index("sparseformers") + 1 :]
                yield [word for word in arguments if not word.startswith("$")] if arguments else arguments


@cache
def flags_of(command: str) -> frozenset[str]:
    """The options that its help names."""
    shown = io.StringIO()
    with redirect_stdout(shown), pytest.raises(SystemExit):
        main([command, "--help-expert" if command == "bootstrap" else "--help"])
    return frozenset(re.findall(r"--[a-z][a-z0-9-]*", shown.getvalue()))


def test_commands__have_the_options_that_are_shown() -> None:
    known = [name for group in COMMANDS.values() for name in group]
    for page in OF_TODAY:
        for command, *arguments in commands(page):
            if command.startswith("-"):
                continue
            assert command in known, (page, command)
            flags = {word.partition("=")[0] for word in arguments if word.startswith("--")}
            assert flags <= flags_of(command) | {"--help", "--help-expert"}, (page, command, flags - flags_of(command))


def test_options__of_bootstrap_are_those_of_the_settings() -> None:
    done = subprocess.run([sys.executable, "docs/options.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_architecture__names_files_that_there_are() -> None:
    named = set(re.findall(r"[\w/]+\.py\b", (ROOT / "docs/architecture.md").read_text(encoding="utf-8")))
    there = [path.as_posix() for folder in ("src", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    assert {name for name in named if not any(path.endswith(f"/{name}") for path in there)} == set()


@pytest.mark.parametrize(("page", "most"), [("README.md", 150), ("docs/results.md", 250)])
def test_pages__stay_short(page: str, most: int) -> None:
    assert len((ROOT / page).read_text(encoding="utf-8").splitlines()) <= most


def test_site__has_every_page() -> None:
    listed = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in ROOT.glob("docs/**/*.md"):
        assert page.relative_to(ROOT / "docs").as_posix() in listed, page.name
