"""The numbers of a detector as tables and curves, on the page and as a file."""

import re

import pytest
import torch

from deepres.detection.mean_ap import tables
from deepres.detection.mean_ap.coco import coco_map
from deepres.detection.mean_ap.confusion import confusion_matrix
from deepres.detection.mean_ap.outcomes import outcomes
from deepres.detection.mean_ap.recall import proposal_recall
from deepres.detection.mean_ap.voc import voc_map
from deepres.findings import Figure, Findings, PrecisionRecall, PrecisionRecallPanel
from deepres.report import page, plots
from deepres.report.colours import LINES, THEME, line_colours
from random_boxes import detections, random_case, truth

A, B = (0, 0, 10, 10), (20, 0, 30, 10)
# One object of each of two classes. A hit at 0.9 and a miss at 0.8 for the first, a miss and then a hit for the second.
TRUTHS = [truth([A, B], [0, 1])]
FOUND = [detections([A, (50, 0, 60, 10), (50, 0, 60, 10), B], [0.9, 0.8, 0.7, 0.6], [0, 0, 1, 1])]
NAMES = ["ace", "king", "queen"]


def shown(*figures, rows=()):
    return page.render(Findings("Detection", "", figures=figures, tables=tuple(rows)))


def cells(html):
    """The rows of cells of each table of a page."""
    return [
        [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)]
        for table in re.findall(r"<table>(.*?)</table>", html, re.DOTALL)
    ]


def test_average_precision_is_shown_in_percent_with_the_mean_of_the_classes_that_have_one():
    table = tables.voc_table(voc_map(TRUTHS, FOUND, NAMES), (0.5, 0.875))
    assert table.columns == ("class", "objects", "detections", "AP (%)")
    assert table.rows == (
        ("ace", 1, 2, "100.0"),
        ("king", 1, 2, "50.0"),
        ("queen", 0, 0, None),
        ("mean", 2, 4, "75.0"),
    )
    assert "50.0 to 87.5" in table.caption and "by area" in table.caption
    assert "by 11 points" in tables.voc_table(voc_map(TRUTHS, FOUND, NAMES, rule="11-point")).caption


def test_the_tables_of_coco_have_its_twelve_figures_and_those_of_each_class():
    whole, each = tables.coco_tables(coco_map(TRUTHS, FOUND, NAMES))
    assert len(whole.rows) == 12
    assert dict(whole.rows)["mAP@.5"] == "75.0"
    assert dict(whole.rows)["mAP@[.5,.95], large"] is None
    assert each.rows == (
        ("ace", "100.0", "100.0", "100.0", "100.0"),
        ("king", "50.0", "50.0", "50.0", "100.0"),
        ("queen", None, None, None, None),
    )


def test_recalls_and_outcomes_have_a_row_each():
    recalls = tables.recall_table(proposal_recall(TRUTHS, [one.boxes[:1] for one in FOUND], (50, 100)))
    assert recalls.rows == ((50, "50.0", "50.0"), (100, "50.0", "50.0"))
    assert dict(tables.outcome_table(outcomes(TRUTHS, FOUND)).rows) == {
        "hit": 2,
        "doubled": 0,
        "wrong class": 0,
        "badly placed": 0,
        "false alarm": 2,
        "missed": 0,
    }


def test_a_curve_has_the_largest_precision_at_each_recall_or_a_higher_one_and_its_score():
    # Three objects. By score: hit 0.9, miss 0.8, hit 0.7, hit 0.6. The precision of 3/4 at the last hit is above 2/3 at
    # the hit before. The recall of 33 % is reached with the first hit, that of 34 % with the second.
    truths = [truth([A, B, (40, 0, 50, 10)])]
    found = [detections([A, (70, 0, 80, 10), B, (40, 0, 50, 10)], [0.9, 0.8, 0.7, 0.6])]
    curve = tables.curve_of_class(voc_map(truths, found, ["ace"]).classes[0])
    assert curve.recalls == list(range(101))
    assert curve.precisions == pytest.approx([100] * 34 + [75] * 67)
    assert curve.scores == pytest.approx([0.9] * 34 + [0.6] * 67)


def test_a_curve_ends_at_the_largest_recall():
    curve = tables.curve_of_class(voc_map([truth([A, B])], [detections([A], [0.9])], ["ace"]).classes[0])
    assert (curve.recalls[-1], len(curve.precisions)) == (50, 51)
    none = tables.curve_of_class(voc_map([truth([A])], [detections()], ["ace"]).classes[0])
    assert (list(none.recalls), list(none.precisions)) == ([], [])


def test_the_page_draws_curves_whose_points_and_table_tell_the_numbers():
    figure = tables.precision_recall_figure(voc_map(TRUTHS, FOUND, NAMES))
    html = shown(figure)
    assert "<title>ace: precision 100.0 % at recall 100 %, with scores of 0.90 and more</title>" in html
    assert "<title>king: precision 50.0 % at recall 100 %, with scores of 0.60 and more</title>" in html
    (numbers,) = cells(html)
    assert numbers[0] == ["recall (%)", "ace, precision (%)", "king, precision (%)"]
    assert numbers[51] == ["50", "100.00", "50.00"]
    assert "recall (%)</text>" in html and "precision (%)</text>" in html
    assert "plain</span>" not in html and "lie above the axis" not in html  # these are of the figures of networks


def test_curves_are_saved_as_a_file_and_the_same_values_give_the_same_bytes(tmp_path):
    figure = tables.precision_recall_figure(voc_map(TRUTHS, FOUND, NAMES))
    both = [plots.save(figure, tmp_path / name).read_bytes() for name in ("a.svg", "b.svg")]
    assert both[0] == both[1] and b"<!-- king -->" in both[0]


@pytest.mark.parametrize(("classes", "panels"), [(1, [1]), (9, [8, 1]), (24, [8, 8, 8]), (25, [8, 8])])
def test_many_classes_stand_in_panels_by_their_average_precision(classes, panels):
    # Class k has 30 objects, k + 1 of which are found.
    boxes = [(10 * place, 0, 10 * place + 8, 8) for place in range(30)]
    truths, found = [], []
    for label in range(classes):
        truths.append(truth(boxes, [label] * 30))
        found.append(detections(boxes[: label + 1], [0.5] * (label + 1), [label] * (label + 1)))
    figure = tables.precision_recall_figure(voc_map(truths, found, [f"class {label}" for label in range(classes)]))
    assert [len(panel.classes) for panel in figure.panels] == panels
    order = [one.label for panel in figure.panels for one in panel.classes]
    assert (order[0], order[-1]) == (f"class {classes - 1}", "class 0")
    assert ("8 classes with the largest" in figure.caption) == (classes > 24)
    for panel in figure.panels:
        assert len({line_colours(figure)[one.label] for one in panel.classes}) == len(panel.classes)
    assert shown(figure).count("<svg ") >= len(panels)


def test_a_detector_that_finds_nothing_and_data_without_objects_make_a_page():
    nothing = tables.precision_recall_figure(voc_map(TRUTHS, [detections()], NAMES))
    absent = tables.precision_recall_figure(voc_map([truth()], FOUND, NAMES))
    assert "No figures are recorded yet." in shown(nothing)
    assert shown(absent)


@pytest.mark.parametrize("name", ["<b>", "$x", "a\nb", "\x1b[2J", "x" * 300, "\ud800"])
def test_a_hostile_class_name_is_only_text(name):
    result = voc_map(TRUTHS, FOUND, [name, "king"])
    counts = tables.confusion_table(confusion_matrix(TRUTHS, FOUND, 2), [name, "king"])
    html = shown(tables.precision_recall_figure(result), rows=(tables.voc_table(result), counts))
    assert "<b>" not in html.split("</style>")[1].split("<script>")[0].replace("<b>Detection", "")
    html.encode()


def test_a_confusion_matrix_is_shaded_by_the_share_of_each_row():
    table = tables.confusion_table(torch.tensor([[3, 1, 0], [0, 0, 0], [0, 2, 0]]), ["ace", "king"])
    assert table.columns == ("", "ace", "king", "missed")
    assert table.rows == (("ace", 3, 1, 0), ("king", 0, 0, 0), ("false alarm", 0, 2, 0))
    assert table.shades == ((0.75, 0.25, 0), (0, 0, 0), (0, 1, 0))
    html = shown(rows=[table])
    assert re.findall(r'--share: ([\d.]+)">(\d+)', html)[:4] == [
        ("0.75", "3"),
        ("0.25", "1"),
        ("0.00", "0"),
        ("0.00", "0"),
    ]


def test_more_than_twenty_classes_have_their_most_frequent_mistakes_alone():
    counts = torch.zeros(22, 22, dtype=torch.int64)
    counts[0, 0], counts[1, 2], counts[3, 21], counts[21, 4] = 9, 2, 5, 1
    table = tables.confusion_table(counts, [f"c{label}" for label in range(21)])
    assert table.rows == (("c3", "no object", 5), ("c1", "c2", 2), ("no object", "c4", 1))
    assert table.shades == ()


def test_text_on_the_darkest_shade_has_contrast_in_both_themes():
    def parts(colour):
        return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]

    def luminance(values):
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in values]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    (most,) = re.findall(r"var\(--c0\) calc\(var\(--share\) \* (\d+)%\)", shown())
    for theme in (0, 1):
        over, under, ink = (parts(THEME[name][theme]) for name in ("c0", "page", "ink"))
        mixed = [int(most) / 100 * a + (1 - int(most) / 100) * b for a, b in zip(over, under, strict=True)]
        low, high = sorted((luminance(mixed), luminance(ink)))
        assert (high + 0.05) / (low + 0.05) >= 4.5


def test_more_classes_than_colours_share_them():
    points = ((0.0, 100.0), (90.0, 10.0), (0.9, 0.1))
    classes = tuple(PrecisionRecall(f"class {label}", *points) for label in range(len(LINES) + 2))
    assert len(plots.inline_panels(Figure("many", "", (PrecisionRecallPanel("p", classes),)), "f")) == 1


def test_the_tables_of_random_cases_are_shown():
    truths, found = random_case(1, pictures=20)
    result = voc_map(truths, found, NAMES)
    rows = (tables.voc_table(result), *tables.coco_tables(coco_map(truths, found, NAMES)))
    assert [len(table) for table in cells(shown(rows=rows))] == [5, 13, 4]
