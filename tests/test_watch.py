"""A page that is watched: it follows runs from their records, reloads itself, and stays as it is at the end."""

import re
import shutil
import signal
import time

import pytest

from browser import chromium
from deepres.records import Run, append_line, write_json
from deepres.report import page, watch
from deepres.report.live import Live, Observer, RunProgress, duration
from deepres.report.runs import findings_of, runs_of
from deepres.runtime.errors import InputError
from deepres.runtime.figures import CLASSIFICATION, LOSS, REPORTED
from runs import make_run

ERRORS = REPORTED[CLASSIFICATION].main
WORDS = {0.4: "0 s", 45: "45 s", 60: "1 min", 200: "3 min 20 s", 7_500: "2 h 5 min", 273_600: "3 d 4 h"}


class Clock:
    """The clock of the watching machine, and a sleep that moves it."""

    def __init__(self):
        self.now, self.then = 1_000.0, []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        """Pass `seconds`, and do what is to happen next."""
        self.now += seconds
        if self.then:
            self.then.pop(0)()


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(watch.time, "monotonic", clock)
    monkeypatch.setattr(watch.time, "sleep", clock.sleep)
    monkeypatch.setattr(watch, "Observer", lambda: Observer(clock))
    return clock


def going(folder, iterations=20, **more):
    """A run of 40 steps of 8 images that is at step `iterations`: 2 s for 10 steps, and 1 s for the test at step 20."""
    run = make_run(folder, done=False, iterations=iterations, **more)
    recipe = run.config["recipe"] | {"window": 10, "evaluate_every": 20}
    write_json(folder / "config.json", run.config | {"recipe": recipe})
    rows = [(10, 3.0), (20, 5.0), (20, 6.0), (30, 8.0)]
    lines = (f'{{"iteration": {at}, "seconds": {seconds}}}\n' for at, seconds in rows if at <= iterations)
    (folder / "timing.jsonl").write_text("".join(lines))
    return run


def finish(folder):
    make_run(folder / "tmp")
    (folder / "tmp/done.json").rename(folder / "done.json")
    shutil.rmtree(folder / "tmp")


def shown(file):
    """The text of the page, without its scripts and styles."""
    html = re.sub(r"<(script|style)>.*?</\1>", "", file.read_text(), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


@pytest.mark.parametrize(("seconds", "words"), WORDS.items())
def test_a_duration_is_told_in_its_two_largest_units(seconds, words):
    assert duration(seconds) == words


def test_the_progress_of_a_run_is_that_of_its_last_rows(tmp_path):
    """5 steps a second of 8 images; 20 steps and the test at the end are left."""
    assert Observer().progress(going(tmp_path / "run")) == RunProgress(
        name="run", network="ResNet-20", state="trains", iteration=20, iterations=40, share=0.5,
        images_per_second=pytest.approx(40.0), seconds_left=pytest.approx(4.0 + 1.0),
        lr=0.1, figures=dict(zip((LOSS, *ERRORS), (1.0, 60.0, pytest.approx(65.123)), strict=True)),
    )  # fmt: skip


def test_a_run_that_has_not_begun_one_that_begins_and_one_that_is_finished(tmp_path):
    observer = Observer()
    assert observer.progress(Run(tmp_path / "none")).state == "has not begun"
    (tmp_path / "locked").mkdir()
    assert observer.progress(Run(tmp_path / "locked")).state == "has not begun"
    begins = observer.progress(going(tmp_path / "begins", iterations=0))
    assert (begins.state, begins.iteration, begins.share, begins.seconds_left) == ("begins", 0, 0.0, None)
    done = observer.progress(make_run(tmp_path / "done"))
    assert (done.state, done.done, done.share, done.seconds_left) == ("finished", True, 1.0, None)


def test_a_run_stands_still_where_this_machine_sees_no_change(tmp_path):
    """Whatever the clock of the machine that writes says."""
    clock = Clock()
    observer, run = Observer(clock), going(tmp_path / "run")
    assert observer.progress(run).state == "trains"
    clock.now += 119
    assert observer.progress(run).seconds_left is not None
    clock.now += 6
    quiet = observer.progress(run)
    assert (quiet.state, quiet.seconds_left, quiet.images_per_second) == ("no new figures for 2 min 5 s", None, None)
    append_line(run.path / "metrics.jsonl", {"iteration": 30, "train_error": 50.0, "train_loss": 1.0, "lr": 0.1})
    assert observer.progress(run).state == "trains"


def test_a_last_line_that_is_half_written_is_left_for_later(tmp_path):
    run = going(tmp_path / "run")
    for name in ("metrics.jsonl", "timing.jsonl"):
        with (run.path / name).open("a") as stream:
            stream.write('{"iteration": 30, "trai')
    assert Observer().progress(run).iteration == 20


def test_a_damaged_run_is_told_in_its_row_and_hides_no_other(tmp_path, clock):
    going(tmp_path / "runs/good")
    bad = going(tmp_path / "runs/bad")
    (bad.path / "metrics.jsonl").write_text("nonsense\n")
    findings, progress = watch.Watcher([tmp_path / "runs"], Observer(clock)).look()
    assert [(run.name, run.network) for run in progress] == [("bad", ""), ("good", "ResNet-20")]
    assert "metrics.jsonl is damaged: line 1" in progress[0].state
    assert [run.name for run in findings.runs] == ["good"]


def test_the_page_of_runs_that_go_on_reloads_and_shows_how_far_they_are(tmp_path):
    run, other = going(tmp_path / "a"), going(tmp_path / "b", iterations=30)
    watcher = watch.Watcher([run.path, other.path, tmp_path / "later"], Observer())
    findings, progress = watcher.look()
    html = page.render(findings, Live(progress, "12:00:00", 5))
    assert "location.reload()" in html and "const seconds = 5;" in html
    assert '<noscript><meta http-equiv="refresh" content="5"></noscript>' in html
    assert "<title>42% – Training of 2 runs – deepres</title>" in html
    page.write(findings, tmp_path / "report.html", Live(progress, "12:00:00", 5))
    words = shown(tmp_path / "report.html")
    assert "a ResNet-20, trains 20 of 40 40 5 s 0.1 1.00 60.00 65.12" in words
    assert "b ResNet-20, trains 30 of 40 40 3 s 0.1 1.00 50.00 65.12" in words
    assert "later has not begun" in words
    assert [curve.label for curve in findings.figures[0].panels[0].curves] == ["a", "b"]  # one configuration
    still = page.render(findings, Live(progress, "12:00:00", None))
    assert "reload" not in still and "http-equiv" not in still and "when the page was no longer watched" in still


def test_a_hostile_name_in_a_watched_page_is_only_text(tmp_path):
    live = Live((RunProgress("<img src=x>", "", "</td><script>alert(1)</script>"),), "12:00:00", 5)
    html = page.render(watch.Findings("", ""), live)
    assert "<img" not in html
    assert html.count("<script>") == 1


def test_a_watched_page_ends_as_the_page_of_the_finished_runs(tmp_path, clock):
    """From no folder to a finished run; the page is written at each change, but not more often than it reloads."""
    run, file, pages = tmp_path / "runs/mine", tmp_path / "page.html", []

    def note():
        pages.append(shown(file))

    def begin():
        going(run)

    clock.then = [note, begin, *[lambda: None] * 9, note, lambda: finish(run)]
    watch.watch([run], file, print)
    assert "mine has not begun" in pages[0]
    assert "20 of 40" in pages[1]
    assert file.read_text() == page.render(findings_of([run]))
    assert "reload" not in file.read_text()


def test_an_interrupted_watch_leaves_a_page_that_stays(tmp_path, clock):
    def interrupt():
        raise KeyboardInterrupt

    run, clock.then = going(tmp_path / "run"), [interrupt]
    with pytest.raises(KeyboardInterrupt):
        watch.watch([run.path], tmp_path / "page.html", print)
    assert "reload" not in (tmp_path / "page.html").read_text()
    assert "20 of 40" in shown(tmp_path / "page.html")


def test_records_that_change_while_they_are_read_leave_the_page_as_it_was(tmp_path, clock, monkeypatch):
    run, said = going(tmp_path / "run"), []
    looks, look = iter([True, False, False, True]), watch.Watcher.look

    def sometimes(self):
        if next(looks, True):
            return look(self)
        raise InputError("the records are being replaced")

    monkeypatch.setattr(watch.Watcher, "look", sometimes)
    clock.then = [*[lambda: None] * 70, lambda: finish(run.path)]
    watch.watch([run.path], tmp_path / "page.html", said.append)
    assert said == ["the records are being replaced"]


def test_runs_that_begin_in_a_watched_folder_are_picked_up(tmp_path, clock):
    """A folder of finished runs is watched for another minute."""
    going(tmp_path / "runs/a")
    later = [lambda: finish(tmp_path / "runs/a"), *[lambda: None] * 40, lambda: make_run(tmp_path / "runs/b", seed=1)]
    clock.then, begun = later, clock.now
    watch.watch([tmp_path / "runs"], tmp_path / "page.html", print)
    assert clock.now - begun >= 40 + watch.LAST_SECONDS
    assert "2 of 2 runs finished" in shown(tmp_path / "page.html")


def test_a_folder_stands_for_the_runs_in_it(deepres, tmp_path):
    for name in ("b", "a"):
        make_run(tmp_path / "runs" / name, seed=ord(name))
    (tmp_path / "runs/other").mkdir()
    write_json(tmp_path / "runs/model/config.json", {"model_type": "resnet"})
    assert [run.path.name for run in runs_of([tmp_path / "runs"])] == ["a", "b"]
    assert deepres("report", "runs").returncode == 0
    assert "2 of 2 runs finished" in shown(tmp_path / "runs/report.html")


def test_the_page_lies_where_it_keeps_no_run_from_beginning(tmp_path):
    assert watch.page_of([tmp_path / "runs/new"]) == tmp_path / "runs/report.html"
    make_run(tmp_path / "runs/old")
    assert watch.page_of([tmp_path / "runs/new", tmp_path / "runs/old"]) == tmp_path / "runs/old/report.html"
    assert watch.page_of([tmp_path / "runs"]) == tmp_path / "runs/report.html"


def test_a_plan_is_watched_with_all_its_runs(tmp_path, clock):
    plan = {"experiment": "fig6", "scale": "smoke", "data": "cifar10", "networks": ["plain20", "resnet20"], "seeds": 1}
    write_json(tmp_path / "fig6-smoke-cifar10/plan.json", plan)
    runs = tmp_path / "cifar10-smoke"
    going(runs / "plain20-seed0", network="plain20")
    place, file = tmp_path / "fig6-smoke-cifar10", tmp_path / "page.html"
    clock.then = [
        lambda: finish(runs / "plain20-seed0"),
        *[lambda: None] * 10,
        lambda: make_run(runs / "resnet20-seed0"),
    ]
    findings, progress = watch.Watcher([place], Observer(clock)).look()
    assert [(run.name, run.state) for run in progress] == [
        ("plain20-seed0", "trains"), ("resnet20-seed0", "has not begun"),
    ]  # fmt: skip
    assert findings.verdicts
    watch.watch([place], file, print)
    assert "2 of 2 runs finished" in shown(file)
    with pytest.raises(InputError, match="give it alone"):
        watch.watch([place, runs], file, print)


@pytest.mark.long
def test_the_verb_watches_a_run_from_before_its_beginning_to_its_end(process, folder, tmp_path):
    watched = process("report", "--watch", "runs/mine", wait=False)
    try:
        assert watched.stdout.readline().strip() == f"Page: {tmp_path / 'runs/report.html'}"
        while not (tmp_path / "runs/report.html").exists():
            assert watched.poll() is None
            time.sleep(0.05)
        begun = process(
            "train", "resnet8", "--data", folder, "--run", "runs/mine", "--iterations", 8, "--batch-size", 4
        )
        assert begun.returncode == 0, begun.stderr
        _, errors = watched.communicate(timeout=60)
        assert (watched.returncode, errors) == (0, "")
    finally:
        watched.kill()
    assert "1 of 1 run finished" in shown(tmp_path / "runs/report.html")
    assert "reload" not in (tmp_path / "runs/report.html").read_text()


@pytest.mark.long
def test_a_signal_ends_the_watch_with_a_page_that_stays(process, tmp_path):
    going(tmp_path / "run")
    watched, file = process("report", "--watch", "run", wait=False), tmp_path / "run/report.html"
    while not file.exists() or "reload" not in file.read_text():
        assert watched.poll() is None, watched.communicate()
        time.sleep(0.05)
    watched.send_signal(signal.SIGTERM)
    watched.communicate(timeout=30)
    assert watched.returncode == 128 + signal.SIGTERM
    assert "reload" not in file.read_text() and "20 of 40" in shown(file)


@pytest.mark.long
def test_a_browser_shows_a_newer_page_by_itself_and_keeps_what_is_unfolded(tmp_path):
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium here")
    run, file = going(tmp_path / "run"), tmp_path / "report.html"

    def write():
        findings, progress = watch.Watcher([run.path], Observer()).look()
        page.write(findings, file, Live(progress, "12:00:00", 1))

    write()
    with chromium(program, tmp_path / "profile") as shown_page:
        shown_page.open(file.as_uri())
        shown_page.wait_for("document.body.innerText.includes('20 of 40')")
        shown_page.value("document.querySelector('details').open = true")
        append_line(run.path / "metrics.jsonl", {"iteration": 30, "train_error": 50.0, "train_loss": 1.0, "lr": 0.1})
        write()
        shown_page.wait_for("document.body.innerText.includes('30 of 40')")
        assert shown_page.value("document.querySelector('details').open")
        assert not shown_page.value("document.querySelectorAll('details')[1].open")
