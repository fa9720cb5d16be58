"""All tables and figures at once: the list, the run of all with its index page, drawn data, and docs/paper.md."""

import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch
from typer.main import get_command

from deepres import cli
from deepres.data.boxes.opening import opened
from deepres.data.sources import load_data_set
from deepres.findings import Findings, Link, Table
from deepres.paper import everything
from deepres.paper.plan import SCALES
from deepres.paper.reproduce import SHEETS
from deepres.paper.samples import SHAPES, TAKEN, drawn
from deepres.paper.sections import SECTIONS
from deepres.report import page
from deepres.runtime.errors import silent
from deepres.runtime.masks import mask_boxes
from runs import run_deepres


class Links(HTMLParser):
    """The targets of the links of a page."""

    def __init__(self, html):
        super().__init__()
        self.targets = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.targets += [unquote(value) for name, value in attrs if tag == "a" and name == "href"]


@pytest.fixture
def only(monkeypatch):
    """Make these sheets all that there are."""

    def choose(*names):
        monkeypatch.setattr(everything, "EVERY", tuple(SHEETS[name] for name in names))

    return choose


def test_the_list_says_what_every_sheet_takes_and_costs(deepres):
    result = deepres("reproduce", "--list", "--json")
    assert result.returncode == 0, result.stderr
    (table,) = json.loads(result.stdout)
    rows = {row["name"]: row for row in table["rows"]}
    assert set(rows) == set(SHEETS)
    assert list(rows)[:5] == ["fig1", "fig4", "fig6", "fig7", "table1"] and list(rows)[-2:] == ["table14", "masks"]
    assert all(row[scale] for row in rows.values() for scale in SCALES)
    assert rows["table6"]["paper"] == "40 runs, 64,000 iterations each"
    assert rows["table9"]["smoke"].startswith("4 runs") and rows["table12"]["paper"].startswith("4 runs")
    assert {row["run"] for row in rows.values()} == {""}
    assert not Path("runs").exists()


@pytest.mark.long
def test_all_runs_every_sheet_on_drawn_data_and_links_their_pages(deepres, only):
    only("fig1", "table1")
    result = deepres("reproduce", "all", "--scale", "smoke", "--json")
    assert result.returncode == 0, result.stderr
    printed = json.loads(result.stdout)
    assert [row["page"].partition(":")[0] for row in printed["tables"][0]["rows"]] == ["Figure 1", "Table 1"]
    assert printed["tables"][0]["rows"][0]["runs"] == "2 of 2"
    index = Path("runs/index.html")
    targets = Links(index.read_text()).targets
    assert len(targets) == 2 and all((index.parent / target).exists() for target in targets)
    # The list knows of them, and the same again trains nothing.
    tables = json.loads(deepres("reproduce", "--list", "--json").stdout)
    assert {row["name"]: row["run"] for row in tables[0]["rows"]} == {
        "fig1": "smoke 2 of 2",
        "table1": "page: runs/table1/report.html",
    }
    assert [row["page"] for row in tables[1]["rows"]] == [f"runs/{targets[0]}"]
    before = [file.stat().st_mtime_ns for file in sorted(Path("runs").glob("*/*/done.json"))]
    assert deepres("reproduce", "all", "--scale", "smoke").returncode == 0
    assert [file.stat().st_mtime_ns for file in sorted(Path("runs").glob("*/*/done.json"))] == before


def test_a_sheet_that_is_refused_is_told_and_holds_up_no_other(deepres, only):
    only("table7", "table1")
    result = deepres("reproduce", "all", "--scale", "quick")
    assert result.returncode == 2
    assert "1 of 2 were not reproduced (table7): table7 takes pictures with boxes" in result.stderr.replace("\n", " ")
    text = Path("runs/index.html").read_text()
    assert "1 of 2 reproduced at the scale quick." in text and "table7 takes pictures with boxes" in text
    assert Path("runs/table1/report.html").exists()


def test_data_go_to_the_sheets_of_their_kind_and_to_one_sheet_by_its_name():
    given = everything._given("images=a,boxes=b,table8=c")  # pyright: ignore[reportPrivateUsage]
    assert given == {"images": "a", "boxes": "b", "table8": "c"}


@pytest.mark.parametrize("data", ["cifar10", "boxes=", "faces=DIR"])
def test_data_of_no_kind_are_refused(refused, data):
    assert "give data by their kind (images, photographs, boxes, objects, masks)" in refused(
        "reproduce", "all", "--data", data
    )


def test_what_cannot_hold_for_all_is_refused(refused):
    assert "--networks is for one table or figure" in refused("reproduce", "all", "--networks", "resnet8")
    assert "--list shows them" in refused("reproduce")


def test_a_plan_that_cannot_be_read_is_told_and_not_listed(deepres):
    Path("runs/fig1-smoke-x").mkdir(parents=True)
    Path("runs/fig1-smoke-x/plan.json").write_text("{")
    result = deepres("reproduce", "--list")
    assert result.returncode == 0 and "not listed" in result.stderr


@pytest.mark.parametrize("kind", ["images", "photographs"])
def test_drawn_class_folders_have_every_shape_in_both_parts(tmp_path, kind):
    root = drawn(kind, tmp_path)
    data = load_data_set(str(root), image_size=None if kind == "images" else 32)
    assert data.classes == SHAPES
    assert data.train.labels.unique().tolist() == data.test.labels.unique().tolist() == list(range(len(SHAPES)))


@pytest.mark.parametrize(("kind", "most"), [("boxes", 4), ("objects", 1)])
def test_drawn_boxes_are_without_fault_and_hold_every_shape(tmp_path, kind, most):
    found = opened(str(drawn(kind, tmp_path)), silent)
    assert not found.faults and found.parts.train.classes == SHAPES
    for part in found.parts:
        counts = [len(part.truth(place)) for place in range(len(part))]
        assert min(counts) >= 1 and max(counts) == most
        assert part.objects.labels.unique().tolist() == list(range(len(SHAPES)))


def test_drawn_masks_are_without_fault_and_as_large_as_their_boxes_where_nothing_covers_them(tmp_path):
    found = opened(str(drawn("masks", tmp_path)), silent, masks=True)
    assert not found.faults
    for part in found.parts:
        assert part.objects.masks.known.all()
        alone = [truth for truth in map(part.truth, range(len(part))) if len(truth) == 1]
        assert alone and all(torch.equal(mask_boxes(truth.masks), truth.boxes) for truth in alone)


@pytest.mark.parametrize("kind", TAKEN)
def test_drawn_data_are_the_same_everywhere_and_are_made_once(tmp_path, kind):
    first, second = drawn(kind, tmp_path / "a"), drawn(kind, tmp_path / "b")
    files = sorted(file.relative_to(first) for file in first.rglob("*") if file.is_file())
    assert files and all((first / file).read_bytes() == (second / file).read_bytes() for file in files)
    (first / files[0]).write_bytes(b"mine")
    assert (drawn(kind, tmp_path / "a") / files[0]).read_bytes() == b"mine"


def test_every_sheet_belongs_to_one_section_of_the_paper():
    named = [name for section in SECTIONS for name in section.sheets]
    assert len(set(named)) == len(named) and set(named) >= set(SHEETS)


def test_the_commands_of_the_sections_are_commands_of_the_program():
    commands = [command for section in SECTIONS for _, command in section.commands]
    assert len(commands) > len(SHEETS)
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "deepres"
        node = get_command(cli.app)
        while hasattr(node, "commands"):
            node = node.commands[words.pop(0)]
        node.make_context(command, words)  # raises for an unknown option and a missing argument


def test_the_doc_of_the_paper_has_every_table_and_figure():
    text = (Path(__file__).parents[1] / "docs" / "paper.md").read_text()
    assert set(re.findall(r"`deepres reproduce (\w+)", text)) - {"NAME", "all"} == set(SHEETS)


def test_a_link_of_a_table_leads_to_its_page_and_is_escaped():
    link = Link("<b> & more", 'a folder/"page".html')
    html = page.render(Findings("Links", "", tables=(Table("Pages", "", ("page",), ((link,),)),)))
    assert '<a href="a%20folder/%22page%22.html">&lt;b&gt; &amp; more</a>' in html
    assert json.dumps(link) == '"<b> & more"'


@pytest.mark.slow
def test_all_of_the_paper_runs_at_the_smoke_scale(tmp_path):
    result = run_deepres(tmp_path, "reproduce", "all", "--scale", "smoke", "--json", timeout=900)
    assert result.returncode == 0, result.stderr
    table, *others = json.loads(result.stdout)["tables"]
    rows = {row["page"].partition(":")[0]: row for row in table["rows"]}
    assert len(rows) == len(SHEETS) and not others
    assert all(len({*row["runs"].split(" of ")}) == 1 for row in rows.values() if row["runs"])
    assert [rows[f"Table {number}"]["runs"] for number in (3, 4, 5, 6)] == ["10 of 10", "5 of 5", "6 of 6", "3 of 3"]
    targets = Links((tmp_path / "runs" / "index.html").read_text()).targets
    assert len(targets) == len(SHEETS) and all((tmp_path / "runs" / target).exists() for target in targets)
