"""Hubs, licences and versions of host libraries: what the adapters share."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from sparseformers.errors import SparseFormersError, TeacherError

LICENCES = {
    "DINOv3 License": ("dinov3-license", "dinov3"),
    "Sapiens2 License": ("sapiens2",),
    "FAIR Noncommercial Research License": ("fair-noncommercial", "eupe"),
    "Apple ML Research Model Terms": ("aimv2", "apple-amlr", "dfndr2b"),
    "Apple Sample Code License": ("apple-ascl",),
    "NVIDIA Open Model License": ("nvidia", "radio"),
    "CC-BY-NC-4.0": ("cc-by-nc", "metaclip", "mae", "nllb"),
    "MIT": ("mit", "eva", "openai", "laion", "datacomp", "commonpool"),
    "Apache-2.0": ("apache", "dinov2", "lvd142m", "dino", "webli", "siglip", "pe_", "pe-", "augreg", "orig"),
}  # licences of hub weights as their authors publish them, and parts of their names or of what a hub calls them

RESTRICTED = (
    "DINOv3 License",
    "Sapiens2 License",
    "FAIR Noncommercial Research License",
    "Apple ML Research Model Terms",
    "CC-BY-NC-4.0",
)  # those that restrict what the weights, and a student's that derive from them, may be used for

# The oldest and newest version of each host library that the tests ran with.
TESTED_VERSIONS = {"timm": ("1.0.21", "1.0.31"), "open_clip_torch": ("2.30", "3.3"), "transformers": ("4.52", "5.23")}
HUB_PATIENCE = 10.0  # seconds to wait for a sign of life from a hub


def check_version(library: str) -> None:
    """Raises TeacherError if a host library is too old."""
    installed, (oldest, newest) = version(library), TESTED_VERSIONS[library]
    have, need = ([int(number) for number in re.findall(r"\d+", text)] for text in (installed, oldest))
    if have[: len(need)] < need:
        problem = f"{library} {installed} is too old; versions {oldest} to {newest} are tested."
        raise TeacherError(problem, f"Upgrade it with: pip install '{library}>={oldest}'.")


def licence_of(name: str, *, stated: str | None = None) -> str | None:
    """The licence of hub weights by what their hub states, or else by their name."""
    # For AIMv2 timm states another licence than its authors do.
    texts = (name, stated or "") if "aimv2" in name else (stated or "", name)
    return next((licence for text in texts if (licence := first_named(LICENCES, text))), stated)


def first_named(known: Mapping[str, Sequence[str]], text: str) -> str | None:
    """The first of several kinds, by parts of their names, that a text names; None where it names none."""
    found = (kind for kind, parts in known.items() for part in parts if re.search(rf"(?<![a-z]){part}", text.lower()))
    return next(found, None)


def restriction(licence: str | None) -> str | None:
    """A sentence for licences that restrict use."""
    if licence not in RESTRICTED:
        return None
    return f"The teacher's weights are under the {licence}, which restricts their use, and with it the student's: read it."


def expect_hub(repository: str | None) -> None:
    """Raises at once, in its client's own way, if the hub is needed and cannot be reached; the client itself tries for a minute.

    ``repository`` is OWNER/NAME or OWNER/NAME/FILE; None where the weights do not come from the hub.
    """
    if repository is None:
        return
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    cached = Path(constants.HF_HUB_CACHE) / "--".join(["models", *repository.split("/")[:2]]) / "snapshots"
    if not constants.HF_HUB_OFFLINE and not cached.is_dir():
        get_session().head(constants.ENDPOINT, timeout=HUB_PATIENCE)


@contextmanager
def hub_errors(teacher: str, *, by_hand: str) -> Iterator[None]:
    """Turns whatever a hub's client raises into one TeacherError that says how to go on without the hub."""
    remedy = f"Check the network, or fetch the file elsewhere and give it as {by_hand}; 'bundled' needs no hub."
    try:
        with client_errors(TeacherError, f"The weights of '{teacher}' could not be fetched", remedy):
            yield
    except TeacherError as error:
        if not _is_gated(error.__cause__):
            raise
        problem = f"The weights of '{teacher}' are gated: the hub gives them to those who have accepted their licence."
        remedy = f"Accept it on the model's page, log in (hf auth login), and try again; or give a local copy as {by_hand}."
        raise TeacherError(problem, remedy) from error


def _is_gated(error: BaseException | None) -> bool:
    while error is not None:
        if type(error).__name__ == "GatedRepoError" or "gated repo" in str(error).lower():
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def client_errors(kind: type[SparseFormersError], problem: str, remedy: str) -> Iterator[None]:
    """Turns whatever a hub's client raises into one error of ``kind``, with the reason after the problem."""
    try:
        yield
    except SparseFormersError:
        raise
    except Exception as error:  # clients raise anything from OSError to their HTTP library's own types
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise kind(f"{problem} ({type(error).__name__}: {reason}).", remedy) from error
