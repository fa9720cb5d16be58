"""The report: from run folders and findings to one page that needs nothing else."""

import dataclasses
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from deepres.findings import (
    Curve,
    Figure,
    Findings,
    Panel,
    ResponsePanel,
    Responses,
    Series,
    Table,
    Verdict,
    curve_of,
    describe,
)
from deepres.records import write_json
from deepres.report import page, plots, runs
from deepres.report.colours import LINES, THEME, line_colours
from deepres.report.lines import line_looks
from deepres.runtime.errors import InputError
from runs import make_run

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """The page as lists: tags, attributes, ids, text, and tables as rows of cells."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.ids, self.tables, self.open = [], [], [], [], []
        self.words = ""
        self.feed(html)
        self.close()
        assert self.open == [], "unclosed elements"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        if "script" in self.open or "style" in self.open:
            return
        self.words += data
        if "td" in self.open[-2:] or "th" in self.open[-2:]:
            self.tables[-1][-1][-1] += data


@pytest.fixture
def four(tmp_path):
    shifts = {"plain20": 0.0, "plain56": 10.0, "resnet20": -2.0, "resnet56": -9.0}
    return [make_run(tmp_path / name, name, shift=shift) for name, shift in shifts.items()]


@pytest.fixture
def full(four):
    """Findings with a verdict of each status, error curves, responses and a table."""
    bare = runs.findings_of_runs(four)
    verdicts = (
        Verdict("Deeper is worse.", "Fig. 6 left", "held", "10 points"),
        Verdict("Shortcuts cure it.", "Fig. 6 middle", "not held", "2 points"),
        Verdict("1202 layers train.", "Fig. 6 right", "not tested", "no run"),
    )
    responses = (
        Responses("plain-20", 20, "plain", [0.2, 0.9, 0.4]),
        Responses("ResNet-20", 20, "residual", [0.1, 0.3, 0.2]),
    )
    panels = (ResponsePanel("original", responses), ResponsePanel("sorted", responses, sorted=True))
    table = Table(
        "Table 6",
        "ours beside the paper's",
        ("net", "ours", "paper"),
        (("ResNet-20", 8.8, 8.75), ("NIN", None, 8.81)),
    )
    figures = (*bare.figures, Figure("Responses", "Fig. 7", panels))
    return dataclasses.replace(bare, verdicts=verdicts, figures=figures, tables=(table, *bare.tables))


def test_the_verdict_comes_before_figures_tables_and_settings(full):
    html = page.render(full)
    places = [html.index(f'id="{name}"') for name in ("verdict", "figures", "tables", "runs")]
    assert places == sorted(places)
    assert Page(html).words.index("Shortcuts cure it.") < html.index("<figure>")


def test_each_verdict_is_told_in_words_and_by_a_mark_of_its_own_shape(full):
    html = page.render(full)
    for status in ("held", "not held", "not tested"):
        name = status.replace(" ", "-")
        assert re.search(rf'<use href="#mark-{name}"/></svg>{status}</span>', html)
    shapes = re.findall(r'<symbol id="mark-[^"]+"[^>]*>(.*?)</symbol>', html)
    assert len(set(shapes)) == 3


def test_the_page_names_no_other_place(full):
    html = page.render(full)
    parsed = Page(html)
    for name, value in parsed.attributes:
        if name in ("href", "src", "srcset", "action", "data", "poster") or name.endswith(":href"):
            assert value.startswith("#"), f"{name}={value}"
    assert set(re.findall(r"https?://[^\s\"'<>]+", html)) <= {"http://www.w3.org/2000/svg"}
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)


def test_the_page_is_whole_html_with_language_title_and_unique_ids(full):
    html = page.render(full)
    parsed = Page(html)
    assert html.startswith("<!DOCTYPE html>")
    assert ("lang", "en") in parsed.attributes
    assert {"title", "main", "figure", "figcaption", "details", "h1", "footer"} <= set(parsed.tags)
    assert len(parsed.ids) == len(set(parsed.ids))
    for used in re.findall(r'(?:href="|url\()#([^")]+)', html):
        assert used in parsed.ids


def test_the_numbers_beneath_a_plot_are_those_of_the_records(four):
    findings = runs.findings_of_runs(four)
    plain, residual = Page(page.render(findings)).tables[:2]
    assert plain[0][:3] == ["iteration", "plain-20, training error (%)", "plain-20, test error (%)"]
    by_iteration = {row[0]: row[1:] for row in plain[1:]}
    for row in four[0].metrics():
        column, key = (0, "train_error") if "train_error" in row else (1, "test_error")
        assert by_iteration[str(row["iteration"])][column] == f"{row[key]:.2f}"
    assert by_iteration["10"][1] == "–"  # no test then
    assert residual[-1] == ["40", "38.00", "43.12", "31.00", "36.12"]


def test_responses_are_listed_in_order_and_by_magnitude(full):
    original, ranked = Page(page.render(full)).tables[2:4]
    assert [row[1] for row in original] == ["plain-20", "0.2000", "0.9000", "0.4000"]
    assert [row[1] for row in ranked] == ["plain-20", "0.9000", "0.4000", "0.2000"]


def test_every_point_of_a_plot_tells_its_numbers(four):
    html = page.render(runs.findings_of_runs(four))
    assert "<title>plain-56, test error: 75.12 % at iteration 20</title>" in html
    assert html.count("<circle") == sum(len(run.metrics()) for run in four)


def test_final_errors_are_those_of_the_done_mark(four):
    table = Page(page.render(runs.findings_of_runs(four))).tables[2]
    assert table[2] == ["plain56", "plain-56", "0", "40", "50.00", "55.12", "20.00"]


def test_an_unfinished_run_is_shown_as_such(tmp_path):
    done = make_run(tmp_path / "whole", "plain20")
    part = make_run(tmp_path / "part", "plain56", done=False, iterations=20)
    parsed = Page(page.render(runs.findings_of_runs([done, part])))
    words = " ".join(parsed.words.split())
    assert "1 of 2 runs is unfinished." in words
    assert "unfinished, at iteration 20 of 40, 3 s" in words
    assert parsed.tables[1][2][4:] == ["–", "–", "–"]


def test_a_run_without_any_figure_yet_makes_a_page(tmp_path):
    run = make_run(tmp_path / "new", done=False, iterations=0)
    assert "No figures are recorded yet." in page.render(runs.findings_of_runs([run]))


def test_the_same_records_give_the_same_page_and_files(full, tmp_path):
    assert page.render(full) == page.render(full)
    for name in ("a.svg", "a.png"):
        first, second = (plots.save(full.figures[0], tmp_path / place / name).read_bytes() for place in ("x", "y"))
        assert first == second


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", '"><img src=x>', "$\\frac{1}$ & \x07 –– %s {{ 7*7 }}", "网络"]
)
def test_a_hostile_name_is_only_text(tmp_path, name):
    run = make_run(tmp_path / "run", name)
    findings = runs.findings_of_runs([run])
    hostile = Verdict(name, name, "held", name)
    table = Table(name, name, (name, "b"), ((name, name),))
    findings = dataclasses.replace(findings, title=name, summary=name, verdicts=(hostile,), tables=(table,))
    parsed = Page(page.render(findings))
    assert parsed.tags.count("script") == 1
    assert "img" not in parsed.tags
    assert name.replace("\x07", r"\x07") in parsed.words
    assert "\x07" not in parsed.words
    plots.save(findings.figures[0], tmp_path / "a.svg")


def test_a_folder_name_that_is_not_text_still_gives_a_page(tmp_path):
    findings = Findings("odd \udcff name", "")
    assert r"odd \udcff name" in page.write(findings, tmp_path / "report.html").read_text()


def test_seeds_of_one_configuration_are_one_curve_with_their_range(tmp_path):
    both = [make_run(tmp_path / f"s{seed}", seed=seed, shift=4.0 * seed) for seed in (0, 1)]
    (panel,) = runs.findings_of_runs(both).figures[0].panels
    (curve,) = panel.curves
    assert (curve.label, curve.depth, curve.kind, curve.seeds) == ("ResNet-20", 20, "residual", 2)
    train = curve.series["training error"]
    assert (train.x, train.y) == ((10, 20, 30, 40), (72.0, 62.0, 52.0, 42.0))
    assert (train.low, train.high) == ((70.0, 60.0, 50.0, 40.0), (74.0, 64.0, 54.0, 44.0))
    assert "72.00 (70.00 to 74.00)" in page.render(runs.findings_of_runs(both))


def test_a_seed_that_has_not_started_does_not_hide_the_others(tmp_path):
    started, new = make_run(tmp_path / "a"), make_run(tmp_path / "b", seed=1, done=False, iterations=0)
    assert curve_of([started, new]).series["training error"].x == (10, 20, 30, 40)


def test_runs_that_differ_in_more_than_the_seed_are_told_apart_by_folder(tmp_path):
    a, b = make_run(tmp_path / "a"), make_run(tmp_path / "b")
    write_json(b.path / "config.json", b.config | {"data": "cifar100"})
    figure = runs.findings_of_runs([a, b]).figures[0]
    assert [curve.label for curve in figure.panels[0].curves] == ["a", "b"]
    assert len(set(line_colours(figure).values())) == 2


def test_plain_networks_stand_left_of_residual_ones_on_the_same_axis(four):
    figure = runs.findings_of_runs(list(reversed(four))).figures[0]
    assert [panel.title for panel in figure.panels] == ["Plain networks", "Residual networks"]
    left, right = (ET.fromstring(svg) for svg in plots.inline_panels(figure, "f"))

    def ticks(svg):
        groups = [group for group in svg.iter() if "-ytick_" in group.get("id", "")]
        return ["".join(group.itertext()).strip() for group in groups]

    assert ticks(left) == ticks(right) != []


def test_depth_decides_the_colour_in_every_panel(four):
    colours = line_colours(runs.findings_of_runs(four).figures[0])
    assert colours["plain-20"] == colours["ResNet-20"] != colours["plain-56"] == colours["ResNet-56"]


def test_more_networks_than_colours_are_drawn_all_the_same():
    curves = tuple(
        Curve(f"n{d}", d, "plain", {"training error": Series((1, 2), (d, d / 2), training=True)})
        for d in range(1, len(LINES) + 4)
    )
    assert len(plots.inline_panels(Figure("many", "", (Panel("p", curves),)), "f")) == 1


def test_text_and_lines_have_contrast_in_both_themes():
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for theme in (0, 1):
        for back in ("page", "raised"):
            for name in ("ink", "muted", "held", "failed", *LINES):
                low, high = sorted(luminance(THEME[key][theme]) for key in (back, name))
                assert (high + 0.05) / (low + 0.05) >= 4.5, f"{name} on {back}, theme {theme}"


@pytest.mark.parametrize("places", [[0.5, 0.5, 0.5], [0.0, 0.01], [0.98, 1.0, 1.0], [0.1, 0.12, 0.5, 0.51], [0.3]])
def test_labels_are_moved_apart_and_stay_on_the_plot(places):
    moved = plots.spaced(places, 0.1)
    assert all(b - a >= 0.1 - 1e-9 for a, b in pairwise(moved))
    assert min(moved) >= -1e-9
    assert max(moved) <= 1 + 1e-9


def test_a_drawing_follows_the_theme_of_the_page(four):
    for svg in plots.inline_panels(runs.findings_of_runs(four).figures[0], "f"):
        assert not re.search(r"#[0-9a-fA-F]{6}\b", svg)
        assert "var(--c0)" in svg
        assert "font-family" not in svg


@pytest.mark.parametrize(("train", "test"), [(True, True), (False, True), (True, False)])
def test_a_saved_figure_names_only_the_kinds_of_error_that_it_shows(tmp_path, train, test):
    points = ((1, 2), (9.0, 8.0))
    series = {"training error": Series(*points, training=True) if train else Series(training=True)}
    curve = Curve("n", 20, "plain", series | {"test error": Series(*points) if test else Series()})
    drawing = plots.save(Figure("one", "", (Panel("p", (curve,)),)), tmp_path / "a.svg").read_text()
    assert ("<!-- training error -->" in drawing, "<!-- test error -->" in drawing) == (train, test)


def test_losses_and_a_precision_are_drawn_as_errors_are(tmp_path):
    """A curve has any number of series; those of the training differ in their dashes."""
    losses = {f"{part} loss": Series((10, 20), (2.0, 1.0), training=True) for part in ("proposal", "box")}
    curve = Curve("detector", 101, "residual", losses)
    whole = Curve("detector", 101, "residual", {"mAP": Series((20,), (70.25,))})
    panels = (Panel("losses", (curve,), value="loss", unit=""), Panel("test", (whole,), value="mAP"))
    figure = Figure("Detection", "", panels)
    assert line_looks(figure) == {"mAP": "bold", "proposal loss": "dashed", "box loss": "dotted"}
    html = page.render(Findings("Detection", "", figures=(figure,)))
    assert "<title>detector, box loss: 1.00 at iteration 20</title>" in html
    assert "<title>detector, mAP: 70.25 % at iteration 20</title>" in html
    losses_table, test_table = Page(html).tables
    assert losses_table[0] == ["iteration", "detector, proposal loss", "detector, box loss"]
    assert test_table == [["iteration", "detector, mAP (%)"], ["20", "70.25"]]
    assert all(f"</svg>{name}</span>" in html for name in ("mAP", "proposal loss", "box loss"))
    drawing = plots.save(figure, tmp_path / "a.svg").read_text()
    assert "<!-- loss -->" in drawing and "<!-- mAP (%) -->" in drawing


def test_a_figure_is_saved_as_png_or_svg_and_nothing_else(full, tmp_path):
    assert plots.save(full.figures[0], tmp_path / "deep" / "a.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in plots.save(full.figures[1], tmp_path / "a.svg").read_bytes()
    with pytest.raises(InputError, match="end the name in"):
        plots.save(full.figures[0], tmp_path / "a.gif")
    assert not list(tmp_path.glob("**/*.partial"))


def test_writing_gives_back_the_file_and_leaves_nothing_else(full, tmp_path):
    file = tmp_path / "out" / "report.html"
    assert page.write(full, file) == file
    assert [place.name for place in file.parent.iterdir()] == ["report.html"]
    with pytest.raises(InputError, match="is a folder"):
        page.write(full, file.parent)
    with pytest.raises(InputError, match="cannot be written"):
        page.write(full, file / "report.html")


def test_what_is_not_a_run_is_said_in_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"config\.json"):
        runs.findings_of([tmp_path])
    with pytest.raises(InputError, match="no run to report"):
        runs.findings_of([])
    write_json(tmp_path / "config.json", {"seed": 0})
    with pytest.raises(InputError, match="no field 'network'"):
        runs.findings_of([tmp_path])


def test_a_plan_is_reported_alone(tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps({}))
    with pytest.raises(InputError, match="give it alone"):
        runs.findings_of([tmp_path, make_run(tmp_path / "run").path])


def test_networks_are_called_as_in_the_paper():
    assert describe("plain56") == ("plain-56", 56, "plain")
    assert describe("resnet34-c") == ("ResNet-34 C", 34, "residual")
    assert describe("highway19") == ("Highway-19", 19, "highway")
    assert describe("mine") == ("mine", 0, "residual")
