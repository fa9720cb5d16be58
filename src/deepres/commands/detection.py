"""Options of the verbs that use a detector: how pictures are looked at."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepres.runtime.errors import InputError

if TYPE_CHECKING:
    from deepres.detection.protocol import Protocol

PANEL = "For a detector"


@dataclass(frozen=True)
class DetectorOptions:
    """The test of a detector: fields of `detection.protocol.Protocol`."""

    sides: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=PANEL,
            help="Shorter side of the pictures, or several with commas, as 400,600,800: multi-scale testing.",
        ),
    ] = None
    refine: Annotated[
        bool, typer.Option("--refine", rich_help_panel=PANEL, help="Refine the boxes, and let neighbours vote on them.")
    ] = False
    threshold: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=PANEL, help="Least score of a box, 0 to 1. Default: 0.05; of detect 0.5, but for coco."
        ),
    ] = None
    most: Annotated[
        int | None, typer.Option(rich_help_panel=PANEL, help="So many boxes a picture at most. Default: 100.")
    ] = None

    @property
    def given(self) -> dict[str, Any]:
        """The options that are not at their defaults, by name."""
        return {name: value for name, value in vars(self).items() if value not in (None, False)}

    def chosen(self, usual: float | None = None) -> "Protocol":
        """The protocol of the options; `usual` is the threshold where none is given. Raises `InputError`."""
        from deepres.detection.protocol import VOTING, Protocol

        try:
            sides = [int(part) for part in self.sides.split(",")] if self.sides is not None else []
        except ValueError:
            raise InputError(f"--sides is {self.sides!r}; give numbers with commas between") from None
        least = usual if self.threshold is None else self.threshold
        how = Protocol(side=sides[0]) if len(sides) == 1 else Protocol(scales=tuple(sides))
        how = replace(how, refine=1, voting=VOTING) if self.refine else how
        return replace(how, threshold=least, most=self.most)
