"""Hugging Face image Parquet: a struct column with the encoded `bytes` of a picture, and an integer label."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet as pq

from deepres.data.listing import Listing, Part, Picture, divided
from deepres.errors import InputError

IMAGE_COLUMNS, LABEL_COLUMNS = ("img", "image"), ("label", "fine_label")
ROWS = 1024  # read at a time, at most
HELD = 2**26  # bytes that are read at a time, even where every row is as large as its whole row group
BUFFER = 2**20  # bytes that come from the disk at a time; otherwise all of a row group does
MOST_UNPACKED, MOST_PACKING = 2**29, 10  # bytes that a row group may unpack to, unless it is hardly packed at all


@dataclass(frozen=True)
class _File:
    path: Path
    name: str  # relative to the folder of the data set
    part: Part


def parquet_folder(root: Path) -> Listing:
    """The pictures of the Parquet files under `root`: `train*`, and `test*` or else `validation*` or `val*`.

    A test part without labels (ImageNet's, all -1) gives way to the validation part.

    A split is told from the name of the file or else of its folder. Without test files, every fifth picture
    of each class is a test picture. Raises `InputError` where there are no training files, or files of
    several data sets; `read()` raises it for a damaged file and for one without the columns.
    """
    found: dict[str, list[Path]] = {"train": [], "test": [], "val": []}
    for path in sorted(root.rglob("*.parquet")):
        split = _split_of(path, root) if path.is_file() else None
        if split is not None:
            found[split].append(path)
    if not found["train"]:
        raise InputError(f"{root} has Parquet files but none named train*.parquet; rename the training files so")
    test = found["test"]
    if not test or (found["val"] and not _labelled(test[0])):
        test = found["val"]
    homes = sorted({str(_home(path, root)) for path in found["train"]})
    if len(homes) > 1:
        raise InputError(f"{root} holds several data sets ({', '.join(homes)}); give the folder of one of them")
    parts: tuple[tuple[Part, list[Path]], ...] = (("train", found["train"]), ("test", test))
    files = [_File(path, path.relative_to(root).as_posix(), part) for part, paths in parts for path in paths]

    def read() -> tuple[tuple[str, ...] | None, Iterable[Picture]]:
        return _class_names(files), _Pictures(files, divide=not test)

    return Listing(root, tuple(file.path for file in files), read, divides=not test)


def _split_of(path: Path, root: Path) -> str | None:
    """`train`, `test` or `val` from the name of the file, else from the folders above it, else None."""
    for name in (path.name, *reversed(path.relative_to(root).parts[:-1])):
        for split in ("train", "test", "val"):
            if name.lower().startswith(split):
                return split
    return None


def _home(path: Path, root: Path) -> Path:
    """The folder of the data set of a training file: above a folder that is named after the split."""
    folder = path.parent
    return folder.parent if folder != root and folder.name.lower().startswith("train") else folder


def _open(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file, buffer_size=BUFFER, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(file, error) from None


def _damaged(file: Path, error: Exception) -> InputError:
    reason = str(error).splitlines()[0].rstrip(". ")
    return InputError(f"{file} is not a whole Parquet file ({reason}); fetch it again")


@dataclass(frozen=True)
class _Pictures:
    """The pictures of Parquet files, read row group by row group each time they are gone through."""

    files: list[_File]
    divide: bool

    def __iter__(self) -> Iterator[Picture]:
        pictures = (picture for file in self.files for picture in _rows(file))
        return divided(pictures) if self.divide else pictures

    def of(self, part: Part) -> Iterator[Picture]:
        """The pictures of one part; files of the other are read only where the parts are of the same files."""
        files = self.files if self.divide else [file for file in self.files if file.part == part]
        return (picture for picture in _Pictures(files, self.divide) if picture.part == part)


def _rows(file: _File) -> Iterator[Picture]:
    """The pictures of one file; a row without bytes or label gets b"" or -1, which `decode` refuses."""
    row = 0
    with _open(file.path) as source:
        image, label = _columns(source.schema_arrow, file.path)
        try:
            for batch in _batches(source, file.path, f"{image}.bytes", label):
                contents = batch.column(image).field("bytes")
                for content, value in zip(contents, batch.column(label).to_pylist(), strict=True):
                    number = -1 if value is None else value
                    yield Picture(f"{file.name} row {row}", number, file.part, content.as_py() or b"")
                    row += 1
        except (pa.ArrowException, OSError) as error:
            raise _damaged(file.path, error) from None


def _batches(source: pq.ParquetFile, file: Path, content: str, label: str) -> Iterator[pa.RecordBatch]:
    """The rows of a file, a few at a time by the size that their row group declares.

    A row may be as large as all of its group: sizes differ, and equal rows are kept once. Raises `InputError` for a
    group that is packed as no pictures are, and for more rows than bytes.
    """
    metadata = source.metadata
    if metadata.num_rows > file.stat().st_size:
        raise InputError(f"{file} declares {metadata.num_rows:,} rows in fewer bytes; it holds no pictures")
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = [group.column(place) for place in range(group.num_columns)]
        size = sum(column.total_uncompressed_size for column in columns)
        packed = sum(column.total_compressed_size for column in columns)
        if size > max(max_unpacked(), packed * MOST_PACKING):
            raise InputError(
                f"{file}: row group {number} unpacks from {packed:,} bytes to {size:,}, which pictures do not, and "
                f"would fill memory; the limit is {max_unpacked():,} (DEEPRES_MAX_UNPACKED)"
            )
        rows = min(ROWS, max(1, HELD // max(size, 1)))
        yield from source.iter_batches(rows, row_groups=[number], columns=[content, label])


def max_unpacked() -> int:
    """The most bytes that a row group may unpack to where it is packed hard: `DEEPRES_MAX_UNPACKED`, or 512 MiB."""
    text = os.environ.get("DEEPRES_MAX_UNPACKED", str(MOST_UNPACKED))
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"DEEPRES_MAX_UNPACKED is {text!r}; give a whole number from 1 up, or unset it")
    return int(text)


def _labelled(file: Path) -> bool:
    """Whether the first rows have labels, which those of a contest's test part lack (null, or -1)."""
    with _open(file) as source:
        _, label = _columns(source.schema_arrow, file)
        first = next(source.iter_batches(ROWS, columns=[label]), None)
    return first is not None and any(value >= 0 for value in first.column(label).drop_null().to_pylist())


def _columns(schema: Any, file: Path) -> tuple[str, str]:
    """Names of the image column and of the label column."""

    def is_image(kind: Any) -> bool:
        if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
            return False
        content = kind.field("bytes").type
        return pa.types.is_binary(content) or pa.types.is_large_binary(content)

    image = next((name for name in IMAGE_COLUMNS if name in schema.names and is_image(schema.field(name).type)), None)
    label = next(
        (name for name in LABEL_COLUMNS if name in schema.names and pa.types.is_integer(schema.field(name).type)),
        None,
    )
    if image is None or label is None:
        missing = "img or image (a struct with bytes)" if image is None else "label or fine_label (whole numbers)"
        raise InputError(f"{file} has no column {missing}, only {', '.join(schema.names)}; give image Parquet files")
    return image, label


def _class_names(files: list[_File]) -> tuple[str, ...] | None:
    """Class names from the Hugging Face metadata, which must agree; None where no file has them."""
    names: Counter[tuple[str, ...]] = Counter()
    for file in files:
        with _open(file.path) as source:
            schema = source.schema_arrow
        _, label = _columns(schema, file.path)
        try:
            features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
            names[tuple(str(name) for name in features[label]["names"])] += 1
        except (KeyError, TypeError, ValueError):
            continue  # files written by other tools have no such metadata, or other features
    if len(names) > 1:
        raise InputError(f"the Parquet files beside {files[0].path} disagree about the class names; fetch them again")
    return next(iter(names), None)
