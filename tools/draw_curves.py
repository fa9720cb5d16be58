"""Draw the curves of runs as a picture for the docs: python tools/draw_curves.py FILE.svg RUN_FOLDER..."""

import sys
from pathlib import Path

from deepres.report import plots
from deepres.report.runs import findings_of

file, *places = map(Path, sys.argv[1:])
plots.save(findings_of(places).figures[0], file)
