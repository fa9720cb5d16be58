"""`deepres report --watch`: the page is written again while runs go on, and reloads itself in the browser."""

import time
from collections.abc import Sequence
from pathlib import Path

from deepres.findings import Findings
from deepres.records import Run
from deepres.report import page
from deepres.report.live import Live, Observer, RunProgress, Signature, signature_of
from deepres.report.runs import findings_of, findings_of_runs, holds_runs, plan_among, runs_of
from deepres.runtime.errors import InputError, Say

RELOAD_SECONDS = 5
POLL_SECONDS = 1.0
RENEW_SECONDS = 30.0  # a page without a change in the records is renewed: it tells which runs stand still
LAST_SECONDS = 60.0  # that a folder of runs, all of them finished, is waited for: more may begin
SHARE_OF_TIME = 10  # from one page to the next passes ten times what it takes: training needs the processor


class Watcher:
    """Looks at the runs in `places`, which may not exist yet, again and again."""

    def __init__(self, places: Sequence[Path], observer: Observer):
        self.places, self.observer = places, observer
        self.signature, self.changed = dict[Path, Signature](), observer.clock()

    def changes(self) -> bool:
        """Whether the records, or which runs there are, have changed since the last call."""
        now = {run.path: signature_of(run) for run in runs_of(self.places)}
        if changed := now != self.signature:
            self.signature, self.changed = now, self.observer.clock()
        return changed

    def look(self) -> tuple[Findings, tuple[RunProgress, ...]]:
        """What the runs show now, and how far each is. Runs that cannot be read are shown by their state alone.

        Raises `InputError` where the records change at that moment.
        """
        runs = runs_of(self.places)
        progress = tuple(self.observer.progress(run) for run in runs)
        if plan_among(self.places):
            return findings_of(self.places), progress
        begun = [run for run, own in zip(runs, progress, strict=True) if own.network]
        nothing = Findings("Waiting for a run", "No run has begun yet.")
        return findings_of_runs(begun, apart=True) if begun else nothing, progress

    def finished(self, progress: Sequence[RunProgress]) -> bool:
        """Whether all runs are finished, and no other one is expected."""
        waits = any(map(holds_runs, self.places)) and self.observer.clock() - self.changed < LAST_SECONDS
        return bool(progress) and all(run.done for run in progress) and not waits


def page_of(places: Sequence[Path]) -> Path:
    """Where the page of `places` is kept: in the first one that is a plan, a run, or a folder of runs.

    Where there is none yet, it lies beside the first place, since a run needs an empty folder to begin.
    """
    shown = (place for place in places if plan_among([place]) or Run(place).exists or holds_runs(place))
    return next(shown, places[0].parent) / "report.html"


def watch(places: Sequence[Path], file: Path, say: Say) -> None:
    """Keep the page `file` up to date until all runs are finished; its last version does not reload.

    Raises `InputError` for a plan that is given together with other folders, and where the page cannot be written.
    """
    watcher, told = Watcher(places, Observer()), ""
    shown, progress, pending = Findings("", ""), tuple[RunProgress, ...](), True
    written, next_page = 0.0, 0.0
    try:
        while not watcher.finished(progress):
            # A page where something has changed, and one from time to time.
            begun, pending = time.monotonic(), watcher.changes() or pending
            if begun >= next_page and (pending or begun - written >= RENEW_SECONDS):
                try:
                    shown, progress = watcher.look()
                    told = ""
                except InputError as error:  # shown again with the next change
                    if told != str(error):
                        say(told := str(error))
                page.write(shown, file, Live(progress, _time_of_day(), RELOAD_SECONDS))
                pending, written = False, time.monotonic()
                next_page = begun + max(RELOAD_SECONDS, SHARE_OF_TIME * (written - begun))
            time.sleep(POLL_SECONDS)
    finally:
        # The last page does not reload; that of finished runs is the one that `deepres report` makes.
        if watcher.finished(progress):
            page.write(findings_of(places), file)
        elif written:
            page.write(shown, file, Live(progress, _time_of_day(), None))


def _time_of_day() -> str:
    return time.strftime("%H:%M:%S")
