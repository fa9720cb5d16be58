"""Table 1: the networks for ImageNet and what they cost, computed from the networks themselves; nothing is trained."""

from dataclasses import dataclass
from pathlib import Path

from deepres.findings import Findings
from deepres.paper import architectures
from deepres.paper.plan import Plan
from deepres.paper.sheet import Reproduction, Sheet


@dataclass(frozen=True, kw_only=True)
class Architectures(Sheet):
    """The tables of networks, which need neither data nor runs."""

    def reproduce(self, asked: Reproduction) -> tuple[Path, Findings]:
        """Make the tables; nothing else of the order is of use than its root."""
        return asked.root / self.name, self.findings()

    def findings(self, plan: Plan | None = None) -> Findings:
        """The tables, which no plan changes."""
        return Findings(self.title, "", tables=architectures.overview())


TABLE1 = Architectures(name="table1", title="Table 1: ImageNet architectures")
