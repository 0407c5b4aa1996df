"""Images of Hugging Face datasets, by the ``datasets`` library: from the hub, saved to a folder, or a folder of image files."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from sparseformers.data.images import MOST_PIXELS, UnreadableImageError, decode, read_image
from sparseformers.data.sources import ImageSource, digest_of
from sparseformers.errors import ConfigError, DataError, MissingExtraError, shorten, suggest

PREFIX = "hf:"
DEFAULT_SPLIT = "train"
SAVED = ("dataset_info.json", "dataset_dict.json", "state.json")  # files by which a folder shows that a dataset was saved to it


class DatasetName(NamedTuple):
    """The name of a column of images: hf:REPO[:CONFIG][@SPLIT][#COLUMN]."""

    repository: str  # OWNER/NAME on the hub, or a folder
    config: str | None  # one of several datasets in it
    split: str  # such as train, or train[:10%]
    column: str | None  # None for the only one that has images

    @classmethod
    def parse(cls, name: str) -> DatasetName:
        """Reads a name; raises ConfigError if there is no repository in it."""
        rest, _, column = name.removeprefix(PREFIX).partition("#")
        rest, _, split = rest.partition("@")
        repository, _, config = (rest, "", "") if Path(rest).exists() else rest.partition(":")
        if not repository:
            problem = f"The name '{name}' is of no dataset."
            raise ConfigError(problem, "Write hf:OWNER/NAME, hf:OWNER/NAME@SPLIT#COLUMN, or hf:FOLDER.")
        return cls(repository, config or None, split or DEFAULT_SPLIT, column or None)

    def __str__(self) -> str:
        config, column = f":{self.config}" if self.config else "", f"#{self.column}" if self.column else ""
        return f"{PREFIX}{self.repository}{config}@{self.split}{column}"

    def absolute(self) -> DatasetName:
        path = Path(self.repository)
        return self._replace(repository=str(path.absolute())) if path.exists() else self


class HuggingFaceSource(ImageSource):
    """Images in a column of a dataset; MissingExtraError, ConfigError for no such split or column, DataError if not loaded."""

    def __init__(self, name: str, *, most_pixels: int = MOST_PIXELS) -> None:
        self.dataset_name = DatasetName.parse(name)
        self.most_pixels = most_pixels
        MissingExtraError.require("datasets", "datasets")
        import datasets

        rows = _loaded(self.dataset_name)
        self.column = _image_column(rows, self.dataset_name)
        # Bytes as they are stored: they are decoded here, within the same limits as all others.
        self.rows = rows.select_columns([self.column]).cast_column(self.column, datasets.Image(decode=False))

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        return f"{self.dataset_name}[{index}]"

    def key(self, index: int) -> str:
        return f"{Path(self.dataset_name.repository).name}@{self.dataset_name.split}[{index}]"

    def read(self, index: int, *, at_least: int | None = None) -> Image.Image:
        name = Path(self.name(index))
        try:
            cell = self.rows[index][self.column]
        except (OSError, ValueError) as error:
            raise UnreadableImageError(name, f"its row cannot be read ({type(error).__name__})") from error
        if cell is None:
            raise UnreadableImageError(name, "the row has no image")
        if cell["bytes"] is None:
            return read_image(Path(cell["path"]), at_least=at_least, most_pixels=self.most_pixels)
        return decode(BytesIO(cell["bytes"]), name, at_least=at_least, most_pixels=self.most_pixels)

    def identity(self) -> list[Any]:
        return [self.dataset_name.split, self.column, len(self), str(self.rows._fingerprint)]

    def digest(self) -> str:
        return digest_of([self.dataset_name.split, self.column, str(len(self))])


def _loaded(name: DatasetName) -> Any:
    import datasets

    folder = Path(name.repository)
    try:
        if any((folder / file).is_file() for file in SAVED):
            saved = datasets.load_from_disk(str(folder))
            return saved if isinstance(saved, datasets.Dataset) else saved[name.split]
        if folder.is_dir():
            return datasets.load_dataset("imagefolder", data_dir=str(folder), split=name.split)
        return datasets.load_dataset(name.repository, name.config, split=name.split)
    except KeyError as error:
        problem = f"The dataset '{name.repository}' has no split '{name.split}'."
        raise ConfigError(problem, f"{suggest(name.split, saved)} There are: {', '.join(saved)}.".strip()) from error
    except Exception as error:  # the library raises all that its own libraries do
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"The dataset '{name}' cannot be loaded ({reason.rstrip('.')}).",
            "Check its name, its split (hf:OWNER/NAME@SPLIT), and that the hub can be reached or the dataset is a local folder.",
        ) from error


def _image_column(rows: Any, name: DatasetName) -> str:
    import datasets

    columns = [column for column, feature in rows.features.items() if isinstance(feature, datasets.Image)]
    if name.column is None and len(columns) == 1:
        return columns[0]
    if name.column in columns:
        return str(name.column)
    if not columns:
        raise DataError(f"The dataset '{name}' has no column of images.", f"Its columns are: {shorten(rows.column_names)}.")
    told = f"no column of images '{name.column}'" if name.column else f"{len(columns)} columns of images"
    raise ConfigError(f"The dataset '{name}' has {told}.", f"Name one after a #: {', '.join(columns)}.")
