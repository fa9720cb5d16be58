"""Image Parquet of Hugging Face: a struct column with the encoded `bytes` of a picture, and an integer label."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepres.data.listing import Listing, Part, Picture
from deepres.data.part_names import TEST, TRAIN, VALIDATION
from deepres.data.patterns import missing
from deepres.data.walk import Walk, class_name, names_of
from deepres.runtime import untrusted, variables
from deepres.runtime.errors import InputError
from deepres.runtime.files import require_regular

SUFFIX = ".parquet"
IMAGE_COLUMNS, LABEL_COLUMNS = ("img", "image"), ("label", "fine_label")
ROWS = 1024  # read at a time, at most
HELD = 2**26  # bytes read at a time, if every row may be as large as its row group
BUFFER = 2**20  # bytes read from disk at a time; without it, a whole row group
MOST_UNPACKED, MOST_PACKING = 2**29, 10  # bytes of an unpacked row group; more if it is packed less than tenfold


@dataclass(frozen=True)
class _File:
    path: Path
    name: str  # relative to the folder of the data set
    part: Part


def parquet_files(root: Path) -> list[Path]:
    """All visible Parquet files in a folder and those below it, sorted."""
    return [Path(path) for path in Walk().files_below(root) if path.lower().endswith(SUFFIX)]


def parquet_folder(root: Path, tables: list[Path]) -> Listing:
    """The pictures of the Parquet files `tables` under `root`: `train*`, and `test*` or else `validation*` or `val*`.

    The split is in the name of the file, or else in the name of a folder above it. Tables without pictures beside those
    that have some are left out. If the test part has no labels (all -1, as ImageNet's), the validation part is taken.
    Without test files, `data.division` divides. Training files may be missing.

    Raises `InputError` where there are neither, for files of several data sets, and where one of
    `train-00000-of-00002` is missing. `scan()` raises it for a damaged file and for one without the columns.
    """
    files = _files(root, tables)
    paths = [file.path for file in files]
    if lost := missing(paths):
        raise InputError(
            f"{root} lacks {names_of(path.name for path in lost)} of the files that its names count; fetch them"
        )

    def scan() -> tuple[tuple[str, ...] | None, Iterable[Picture]]:
        return _class_names(files), _RowPictures(files)

    # Tell what is not read.
    unused = [path.relative_to(root).as_posix() for path in tables if path not in set(paths)]
    notes = [f"Parquet files that are not read: {names_of(unused)}"] if unused else []
    walk = Walk()
    others = (Path(path).suffix.lower() for path in walk.files_below(root))
    walk.unread.update(suffix for suffix in others if suffix != SUFFIX)
    return Listing(root, tuple(paths), scan, all(file.part == "train" for file in files), (*notes, *walk.notes()))


def _files(root: Path, tables: list[Path]) -> list[_File]:
    """The tables that are read, those of the training part first."""
    found: dict[str, list[Path]] = {"train": [], "test": [], "val": []}
    with_pictures = [path for path in tables if holds_pictures(path)]
    for path in with_pictures or tables:
        split = _split_of(path, root)
        if split is not None:
            found[split].append(path)
    train, test = found["train"], found["test"]
    if not test or (found["val"] and not _has_labels(test[0])):
        test = found["val"]
    if not train and not test:
        raise InputError(f"{root} has Parquet files but none named train*.parquet; rename the training files so")
    homes = sorted({str(_home(path, root)) for path in train or test})
    if len(homes) > 1:
        raise InputError(f"{root} holds several data sets ({', '.join(homes)}); give the folder of one of them")
    parts: tuple[tuple[Part, list[Path]], ...] = (("train", train), ("test", test))
    return [_File(path, path.relative_to(root).as_posix(), part) for part, paths in parts for path in paths]


def holds_pictures(file: Path, *, damaged: bool = True) -> bool:
    """Whether a Parquet file has columns of pictures and labels; `damaged` is the answer for an unreadable file."""
    try:
        with _open(file) as source:
            _columns(source.schema_arrow, file)
    except _NoPicturesError:
        return False
    except InputError:
        return damaged
    return True


class _NoPicturesError(InputError):
    """A Parquet file without the columns of pictures and labels."""


def _split_of(path: Path, root: Path) -> str | None:
    """`train`, `test` or `val` from the first word of the name of the file, else of the folders above it, else None."""
    for name in (path.name, *reversed(path.relative_to(root).parts[:-1])):
        for split, words in (("train", TRAIN), ("test", TEST), ("val", VALIDATION)):
            if name.lower().startswith(words):
                return split
    return None


def _home(path: Path, root: Path) -> Path:
    """The folder of the data set of a file: the one above a folder named after the training part."""
    folder = path.parent
    return folder.parent if folder != root and folder.name.lower().startswith("train") else folder


def _open(file: Path) -> Any:
    pa = _arrow()
    try:
        require_regular(file)
        return pa.parquet.ParquetFile(file, buffer_size=BUFFER, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(file, error) from None


def _arrow() -> Any:
    """The package that reads Parquet, loaded on first need. Raises `InputError` where it is missing."""
    try:
        import pyarrow.parquet  # pyright: ignore[reportUnusedImport]
    except ModuleNotFoundError:
        raise InputError("Parquet files are read by the package pyarrow, which is missing; install it") from None
    return pyarrow


def _damaged(file: Path, error: Exception) -> InputError:
    reason = (getattr(error, "strerror", None) or str(error)).splitlines()[0].rstrip(". ")
    return InputError(f"{file} is not a whole Parquet file ({reason}); fetch it again")


@dataclass(frozen=True)
class _RowPictures:
    """The pictures of Parquet files, read row group by row group in each iteration."""

    files: list[_File]

    def __iter__(self) -> Iterator[Picture]:
        return (picture for file in self.files for picture in _rows(file))

    def of(self, part: Part) -> Iterator[Picture]:
        """The pictures of one part. Files of the other part are not read."""
        return iter(_RowPictures([file for file in self.files if file.part == part]))


def _rows(file: _File) -> Iterator[Picture]:
    """The pictures of one file. A row without bytes gets b"", which does not decode.

    Raises `InputError` for the label null and for a damaged file.
    """
    pa, row = _arrow(), 0
    with _open(file.path) as source:
        image, label = _columns(source.schema_arrow, file.path)
        try:
            for batch in _batches(source, file.path, f"{image}.bytes", label):
                contents = batch.column(image).field("bytes")
                for content, value in zip(contents, batch.column(label).to_pylist(), strict=True):
                    if value is None:
                        raise InputError(f"{file.path} row {row} has the label null; mend it, or remove the row")
                    yield Picture(f"{file.name} row {row}", value, file.part, content.as_py() or b"")
                    row += 1
        except (pa.ArrowException, OSError) as error:
            raise _damaged(file.path, error) from None


def _batches(source: Any, file: Path, content: str, label: str) -> Iterator[Any]:
    """The rows of a file in batches, whose size follows from the bytes that the row group declares.

    A single row may be as large as the whole group, since sizes differ and equal rows are stored once. Raises
    `InputError` for a group packed more than pictures can be, and for more rows than bytes.
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
    """The most bytes to which a row group of high compression may unpack: `DEEPRES_MAX_UNPACKED`, or 512 MiB."""
    return variables.whole("DEEPRES_MAX_UNPACKED", MOST_UNPACKED)


def _has_labels(file: Path) -> bool:
    """Whether one of the first rows has a label. Test parts of contests have none (null, or -1)."""
    with _open(file) as source:
        _, label = _columns(source.schema_arrow, file)
        first = next(source.iter_batches(ROWS, columns=[label]), None)
    return first is not None and any(value >= 0 for value in first.column(label).drop_null().to_pylist())


def _columns(schema: Any, file: Path) -> tuple[str, str]:
    """Names of the image column and the label column. Raises `InputError` where one is missing."""
    pa = _arrow()

    def is_image(kind: Any) -> bool:
        if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
            return False
        content = kind.field("bytes").type
        return pa.types.is_binary(content) or pa.types.is_large_binary(content)

    image = next((name for name in IMAGE_COLUMNS if name in schema.names and is_image(schema.field(name).type)), None)
    label = next(
        (name for name in LABEL_COLUMNS if name in schema.names and pa.types.is_integer(schema.field(name).type)), None
    )
    if image is None or label is None:
        missing = "img or image (a struct with bytes)" if image is None else "label or fine_label (whole numbers)"
        raise _NoPicturesError(
            f"{file} has no column {missing}, only {', '.join(schema.names)}; give image Parquet files"
        )
    return image, label


def _class_names(files: list[_File]) -> tuple[str, ...] | None:
    """Class names from the metadata of Hugging Face; None where no file has them.

    Raises `InputError` where files disagree or the metadata are damaged.
    """
    names: Counter[tuple[str, ...]] = Counter()
    for file in files:
        with _open(file.path) as source:
            schema = source.schema_arrow
        _, label = _columns(schema, file.path)
        text = (schema.metadata or {}).get(b"huggingface")
        if text is None:
            continue
        where, mend = f"the Hugging Face metadata of {file.path}", "write the file anew"
        known = untrusted.decode(text, dict[str, Any], where, mend)
        try:
            found = known["info"]["features"][label]["names"]
        except (KeyError, TypeError):
            continue  # written by another tool
        found = untrusted.convert(found, list[str], f"{where} on {label}", mend)
        names[tuple(class_name(name, file.path) for name in found)] += 1
    if len(names) > 1:
        raise InputError(f"the Parquet files beside {files[0].path} disagree about the class names; fetch them again")
    return next(iter(names), None)
