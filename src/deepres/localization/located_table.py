"""What a test of localizers found, kept as a file: which pictures were right, and all figures of that."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from deepres.classification.accuracy import Scores
from deepres.findings import Cell, Table
from deepres.localization.error import error_of
from deepres.records import Json, write_json
from deepres.runtime import untrusted
from deepres.runtime.errors import InputError

PREFIX = "located-"  # of the files in a run folder
# What a row says, by the name of its hits: the part of the paper's tables that it stands for.
ROWS = {
    "centre": "box in the middle, class given",
    "given": "class given",
    "top1": "top-1, classes predicted",
    "top5": "top-5, classes predicted",
    "class1": "top-1 error of the classes alone",
    "class5": "top-5 error of the classes alone",
}


class _Record(TypedDict):
    data: str
    hits: dict[str, list[bool]]
    facts: Json


@dataclass(frozen=True)
class LocatedTable:
    """Whether each of N pictures of `data` was right, by the names of `ROWS`; those of predicted classes may be absent.

    `centre` is a box in the middle of the picture, of the mean size of the training objects. `facts` tell what was
    tested, and how.
    """

    data: str
    hits: dict[str, list[bool]]
    facts: Json

    def scores(self, row: str) -> Scores:
        """The error of a row, with its interval; of two tables on the same pictures also their difference."""
        return error_of(self.hits[row])

    @property
    def pictures(self) -> int:
        """How many pictures were tested."""
        return len(self.hits["given"])

    def record(self) -> Json:
        """All figures, in percent, ready for JSON."""
        errors = {
            name: {"error": own.error(), "interval": list(own.interval())}
            for name, own in ((name, self.scores(name)) for name in ROWS if name in self.hits)
        }
        return {"data": self.data, "pictures": self.pictures, "errors": errors, **self.facts}

    def table(self, run: str = "") -> Table:
        """The errors for readers, each with its interval; `run` is the name of the run that keeps them."""
        rows: list[tuple[Cell, ...]] = []
        for name, what in ROWS.items():
            if name in self.hits:
                own = self.scores(name)
                low, high = own.interval()
                rows.append((what, f"{own.error():.2f}", f"{low:.2f} to {high:.2f}"))
        caption = (
            f"{self.facts['title']}, {self.pictures:,} pictures. A box is right where it overlaps (IoU) an object of "
            "its class by 0.5 and the class is right. Intervals: bootstrap over pictures, 95 %."
        )
        title = f"Localization error of {run}, {self.facts['title']} (%)" if run else "Localization error (%)"
        return Table(title, caption, ("test", "error", "interval"), tuple(rows))


def write_located(file: Path, table: LocatedTable) -> None:
    """Write a table, atomically. Raises `OSError`."""
    write_json(file, {"data": table.data, "hits": table.hits, "facts": table.facts})


def read_located(file: Path) -> LocatedTable:
    """The table of a file that `write_located` wrote. Raises `InputError` for one that is damaged."""
    mend = "delete it, and run deepres eval again"
    read = untrusted.read(file, _Record, mend, own=True)
    lengths = {len(own) for own in read["hits"].values()}
    if "given" not in read["hits"] or len(lengths) != 1 or 0 in lengths:
        raise InputError(f"{file} is damaged: its rows have other lengths; {mend}")
    return LocatedTable(read["data"], read["hits"], read["facts"])
