"""How localizers are tested: `center` is the 1-crop of Table 13, `dense` the whole picture at several sizes."""

from dataclasses import dataclass

from deepres.classification.views import Protocol as Views
from deepres.runtime.errors import InputError

CENTER = Views("center")
MOST = 10_000  # regions of a class


@dataclass(frozen=True)
class Protocol:
    """The test of localizers. Raises `InputError` for values that make no sense.

    Of all views of a picture, the box with the best score is its box; with `voting`, boxes that overlap it by so much
    and more are averaged with it, weighted by score. The paper names the dense test and no sizes: those of
    classification are taken. An R-CNN stage gets the `proposals` best boxes of each class.
    """

    views: Views = CENTER
    voting: float = 0.0
    proposals: int = 200  # Appendix C
    nms: float = 0.7  # proposals overlap less, as in Faster R-CNN
    before: int = 2_000  # best boxes of a class before non-maximum suppression

    def __post_init__(self) -> None:
        """Check every field."""
        if self.views.name not in ("center", "dense"):
            raise InputError(f"a localizer is tested by the protocol center or dense, not {self.views.name}")
        for name, value, most in (
            ("voting", self.voting, 1),
            ("nms", self.nms, 1),
            ("proposals", self.proposals, MOST),
        ):
            least = 1 if name == "proposals" else 0
            if not least <= value <= most:
                raise InputError(f"{name} is {value}, but must be from {least} to {most:,}")


PLAIN = Protocol()
