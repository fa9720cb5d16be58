"""Pictures with the truth and what a detector finds side by side: a sheet of several, and its mistakes one by one."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.v2 import functional

from deepres.data.boxes.truth import Truth
from deepres.detection.detection_table import DetectionTable
from deepres.detection.figures import SURE
from deepres.detection.mean_ap.outcomes import Outcome
from deepres.models.detection.outputs import Detections
from deepres.report.boxes import INK, Marks, draw, font_of, of_detections, of_truth, write
from deepres.runtime.errors import InputError
from deepres.runtime.files import replacing
from deepres.runtime.printing import marked, visible

CELL = (440, 330)  # width and height of a picture on the sheet at most
LARGEST = 3.0  # times that a small picture is enlarged at most
ACROSS = 2  # pictures side by side, each with truth and detections
STRIP, GAP, LETTERS = 22, 6, 13  # pixels: height of the line above a picture, room between pictures, height of letters
PAPER, MUTED = (255, 255, 255), (150, 150, 150)
ALARM = (255, 90, 70)  # the colour of a mistake
MOST_DRAWN = 200  # mistakes of a kind that become pictures
MISTAKES = ("kind", "picture", "class", "true class", "score", "overlap", "left", "top", "right", "bottom")


def sheet(
    pictures: Iterable[Tensor],
    truths: Sequence[Truth],
    detections: Sequence[Detections],
    classes: Sequence[str],
    names: Sequence[str],
) -> Image.Image:
    """All pictures, uint8 (1 or 3, H, W), on one sheet: the truth at the left, beside it what is found."""
    pairs: list[Image.Image] = []
    for picture, truth, found, name in zip(pictures, truths, detections, names, strict=True):
        small, scale = resized(picture, CELL, LARGEST)
        marks = of_truth(truth, classes), of_detections(found, classes)
        cells = [draw(small, replace(own, boxes=own.boxes * scale)) for own in marks]
        pairs.append(beside(cells, (f"annotated: {visible(name)}", "found")))
    rows = [_joined(pairs[first : first + ACROSS], down=False) for first in range(0, len(pairs), ACROSS)]
    return _joined(rows, down=True)


def beside(images: Sequence[Image.Image], titles: Sequence[str]) -> Image.Image:
    """Images side by side, each with its title above."""
    titled: list[Image.Image] = []
    for image, title in zip(images, titles, strict=True):
        whole = Image.new("RGB", (image.width, image.height + STRIP), PAPER)
        whole.paste(image, (0, STRIP))
        ImageDraw.Draw(whole).text((2, STRIP // 2), title, fill=INK, font=font_of(LETTERS), anchor="lm")
        titled.append(whole)
    return _joined(titled, down=False)


def write_mistakes(
    folder: Path, table: DetectionTable, ends: Sequence[Outcome], picture: Callable[[int], Tensor]
) -> int:
    """List the mistakes among `ends` in `mistakes.csv`, and draw the first `MOST_DRAWN` of a kind; returns how many.

    Pictures lie in a folder for each kind. Their names begin with the place in the list: the surest detections first,
    then the missed objects, the largest first. What is wrong is drawn in red, all else in gray. `picture` gives that
    of a row of the table. Raises `InputError` where a file cannot be written.
    """
    drawn = Counter[str]()
    wrong = [one for one in ends if one.kind != "hit"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(MISTAKES)
    for number, one in enumerate(wrong, 1):
        writer.writerow(_listed(one, table))
        if drawn[one.kind] == MOST_DRAWN:
            continue
        drawn[one.kind] += 1
        own = (table.truths[one.picture], table.found[one.picture])
        image = _mistake(picture(one.picture), *own, one, table.classes)
        name = f"{number:05}-{Path(table.names[one.picture]).stem}.jpg"
        write(image, folder / one.kind.replace(" ", "-") / name)
    try:
        with replacing(folder / "mistakes.csv") as partial:
            partial.write_text(text.getvalue(), encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"the list cannot be written to {folder} ({error}); give another --wrong") from None
    return drawn.total()


def refuse_used(folder: Path) -> None:
    """Raise `InputError` where `folder` is no folder, or not empty: what is in it would be mixed with the mistakes."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--wrong {folder} is to be a new folder, for the pictures of mistakes; give another name")


def _listed(one: Outcome, table: DetectionTable) -> tuple[str | float, ...]:
    """The row of a mistake; the box is that of the detection, or of the object that is missed."""
    truth, found = table.truths[one.picture], table.found[one.picture]
    taken = "" if one.detection is None else table.classes[int(found.labels[one.detection])]
    true = "" if one.truth is None else table.classes[int(truth.labels[one.truth])]
    box = truth.boxes[one.truth or 0] if one.detection is None else found.boxes[one.detection]
    score = "" if one.score is None else f"{one.score:.6f}"
    edges = (f"{edge:.3f}" for edge in box.tolist())
    names = map(marked, (table.names[one.picture], taken, true))
    return (one.kind, *names, score, f"{one.overlap:.6f}", *edges)


def _mistake(picture: Tensor, truth: Truth, found: Detections, one: Outcome, classes: Sequence[str]) -> Image.Image:
    """The truth and the detections of a picture, with one mistake in red."""
    sure = int((found.scores >= SURE).sum())  # scores fall
    left, right = of_truth(truth, classes), of_detections(found.first(sure), classes)
    enlarged, scale = resized(picture, CELL, LARGEST)
    if enlarged.numel() < picture.numel():
        enlarged, scale = picture, torch.ones(4)
    both = (_alarmed(left, one.truth), _alarmed(right, one.detection))
    cells = [draw(enlarged, replace(own, boxes=own.boxes * scale)) for own in both]
    return beside(cells, (f"annotated ({one.kind})", "found"))


def _alarmed(marks: Marks, place: int | None) -> Marks:
    """The marks with the one at `place` first, so on top, in red, and all others in gray and without text."""
    count = len(marks.texts)
    order = sorted(range(count), key=lambda own: own != place)
    texts = [marks.texts[own] if own == place else "" for own in order]
    colours = [ALARM if own == place else MUTED for own in order]
    places = torch.tensor(order, dtype=torch.int64)
    return Marks(marks.boxes[places], texts, colours, None if marks.masks is None else marks.masks[places])


def sure(found: Sequence[Detections]) -> list[Detections]:
    """The detections with a score of `SURE` or more."""
    return [own.first(int((own.scores >= SURE).sum())) for own in found]


def resized(picture: Tensor, room: tuple[int, int], largest: float) -> tuple[Tensor, Tensor]:
    """A picture that fits into `room` (width, height), and what its boxes are multiplied by, (4,).

    It is enlarged at most `largest` times.
    """
    height, width = picture.shape[1:]
    scale = min(room[0] / width, room[1] / height, largest)
    wide, high = max(1, round(scale * width)), max(1, round(scale * height))
    return functional.resize(picture, [high, wide], antialias=True), torch.tensor([wide / width, high / height] * 2)


def _joined(images: Sequence[Image.Image], down: bool) -> Image.Image:
    """Images in a row, or with `down` in a column."""
    lengths = [image.height if down else image.width for image in images]
    long, wide = sum(lengths) + GAP * (len(images) - 1), max(image.width if down else image.height for image in images)
    whole, at = Image.new("RGB", (wide, long) if down else (long, wide), PAPER), 0
    for image, length in zip(images, lengths, strict=True):
        whole.paste(image, (0, at) if down else (at, 0))
        at += length + GAP
    return whole
