"""What goes with the weights of a network on a backbone, a detector or a localizer, so that it can be made again."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Self

from deepres.models.network import Network
from deepres.runtime.errors import InputError, few

LISTS = ("anchor_scales", "anchor_ratios")
MOST_ANCHORS = 16  # scales, or ratios


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The structure of a network with anchors. Raises `InputError` for a value that makes no sense."""

    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {}  # the least and the greatest value of each number

    anchor_scales: tuple[float, ...] = (8.0, 16.0, 32.0)  # sides of the square anchors are 16 times as long, in pixels
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # height by width

    def __post_init__(self) -> None:
        for name in LISTS:
            value = getattr(self, name)
            if not value or len(value) > MOST_ANCHORS or not all(0.01 <= part <= 100 for part in value):
                shown = few(map(str, value)) or "empty"
                raise InputError(f"{name} is {shown}, but must be 1 to {MOST_ANCHORS} numbers from 0.01 to 100")
        for name, (least, most) in self.bounds.items():
            if not least <= getattr(self, name) <= most:
                raise InputError(f"{name} is {getattr(self, name)}, but must be from {least} to {most:,}")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The plan of these fields; lists become tuples, fields of other names are left out."""
        own: dict[str, Any] = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        return cls(**own | {name: tuple(own[name]) for name in LISTS if name in own})


def name_network(made: Network, kind: str, features: Network, plan: Plan, num_classes: int, key: str) -> None:
    """Give a network of a `kind` on the backbone `features` its name, and a header with the `plan` under the `key`.

    `catalog.build` makes the network again of both.
    """
    made.name = f"{kind}{features.name}"
    made.header = features.header | {"network": made.name, "num_classes": num_classes, key: asdict(plan)}
    made.header.pop("classes", None)
