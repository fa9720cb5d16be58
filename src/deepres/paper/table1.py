"""Table 1: the networks for ImageNet and their costs, computed from the networks; nothing is trained."""

from dataclasses import dataclass
from pathlib import Path

from deepres.findings import Findings
from deepres.paper import architectures
from deepres.paper.plan import SCALES, Plan
from deepres.paper.sheet import Reproduction, Sheet


@dataclass(frozen=True, kw_only=True)
class Architectures(Sheet):
    """A sheet of tables of networks, which needs neither data nor runs."""

    def reproduce(self, asked: Reproduction) -> tuple[Path, Findings]:
        """Make the tables; of `asked` only the root is used."""
        return asked.root / self.name, self.findings()

    def findings(self, plan: Plan | None = None) -> Findings:
        """The tables; they do not depend on a plan."""
        return Findings(self.title, "", tables=architectures.overview())


TABLE1 = Architectures(name="table1", title="Table 1: ImageNet architectures", costs=dict.fromkeys(SCALES, "seconds"))
