"""Boxes and masks drawn into pictures, with class and score: what a detector finds, and what the annotation has."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from deepres.data.boxes.truth import Truth
from deepres.models.detection.outputs import Detections
from deepres.report.colours import LINES, THEME
from deepres.runtime.errors import InputError
from deepres.runtime.files import replacing
from deepres.runtime.masks import Masks, decoded
from deepres.runtime.printing import visible

TEXT = 0.026  # height of the letters, in the mean of the picture's sides
LEAST_TEXT = 9  # pixels
LINE = 5  # so many times thinner than the letters are high
RIM = 3  # so many times thinner than a line its dark rim is
GOLDEN = 0.618034  # hues so far apart, around the circle, never come near each other soon
Colour = tuple[int, int, int]
INK: Colour = (0, 0, 0)
SHADE = 0.45  # of a mask's colour over the picture
QUALITY = 92  # of a JPEG


@dataclass(frozen=True, eq=False)
class Marks:
    """The n boxes that are drawn into one picture: (n, 4) in its pixels, each with a text, a colour and perhaps a mask.

    Where they overlap, the first lies on top. Masks may be of the same picture in another size.
    """

    boxes: Tensor
    texts: Sequence[str]
    colours: Sequence[Colour]
    masks: Masks | None = None


def colour_of(label: int) -> Colour:
    """The colour of the class at this place among the classes, the same in every picture: light, for black letters."""
    if label < len(LINES):
        red, green, blue = (int(THEME[LINES[label]][1][start : start + 2], 16) for start in (1, 3, 5))
        return red, green, blue
    red, green, blue = (round(255 * part) for part in colorsys.hls_to_rgb(label * GOLDEN % 1, 0.7, 0.9))
    return red, green, blue


def of_detections(found: Detections, classes: Sequence[str]) -> Marks:
    """The marks of detections: class and score."""
    labels: list[int] = found.labels.tolist()
    texts = [f"{visible(classes[own])} {score:.2f}" for own, score in zip(labels, found.scores.tolist(), strict=True)]
    return Marks(found.boxes, texts, [*map(colour_of, labels)], found.masks)


def of_truth(truth: Truth, classes: Sequence[str]) -> Marks:
    """The marks of the objects of an annotation: the class, and whether the object is difficult or a crowd."""
    labels: list[int] = truth.labels.tolist()
    more = [
        " (crowd)" if crowd else " (difficult)" if difficult else ""
        for crowd, difficult in zip(truth.crowd.tolist(), truth.difficult.tolist(), strict=True)
    ]
    texts = [visible(classes[label]) + own for label, own in zip(labels, more, strict=True)]
    return Marks(truth.boxes, texts, [*map(colour_of, labels)], truth.masks)


def draw(picture: Tensor, marks: Marks) -> Image.Image:
    """The picture uint8 (1 or 3, H, W) in RGB with its marks; lines and letters are in proportion to its size."""
    height, width = picture.shape[1:]
    image = picture.cpu().expand(3, -1, -1)
    letters = max(LEAST_TEXT, round(TEXT * (height * width) ** 0.5))
    line = max(1, round(letters / LINE))
    rim = max(1, round(line / RIM))
    if marks.masks is not None:
        image = _shaded(image, marks.masks, marks.colours)
    # The lines, on a dark rim; torchvision takes the last pixels that belong to a box.
    last = torch.tensor([width - 1, height - 1]).repeat(2)
    edges = torch.cat([marks.boxes[:, :2].floor(), marks.boxes[:, 2:].ceil() - 1], 1).cpu().long().flip(0)
    edges = edges.clamp(min=0).minimum(last)
    edges = torch.cat([edges[:, :2], torch.maximum(edges[:, :2], edges[:, 2:])], 1)
    if len(edges):
        around = edges + rim * torch.tensor([-1, -1, 1, 1])
        image = draw_bounding_boxes(image, around, colors=INK, width=line + 2 * rim)
        image = draw_bounding_boxes(image, edges, colors=[*reversed(marks.colours)], width=line)
    # The texts, above the lines of all boxes.
    made: Image.Image = functional.to_pil_image(image)
    pen, font = ImageDraw.Draw(made), font_of(letters)
    for box, text, colour in zip(edges.tolist(), reversed(marks.texts), reversed(marks.colours), strict=True):
        if text:
            _write(pen, font, text, (box[0], box[1]), colour)
    return made


def _shaded(image: Tensor, masks: Masks, colours: Sequence[Colour]) -> Tensor:
    """The image uint8 (3, H, W) with each mask in its colour, one after another, to save memory."""
    for place in reversed(range(len(masks))):
        mask = decoded(masks[place : place + 1])
        if mask.shape[1:] != image.shape[1:]:
            mask = functional.resize(mask, list(image.shape[1:]), InterpolationMode.NEAREST)
        image = draw_segmentation_masks(image, mask.bool(), SHADE, [colours[place]])
    return image


def write(image: Image.Image, file: Path) -> None:
    """Write a drawn picture, atomically: as JPEG or PNG by the name. Raises `InputError` where it cannot be."""
    kind = "PNG" if file.suffix.lower() == ".png" else "JPEG"
    how = {} if kind == "PNG" else {"quality": QUALITY, "subsampling": 0}
    try:
        with replacing(file) as partial:
            image.save(partial, kind, **how)
    except OSError as error:
        raise InputError(f"the picture {file} cannot be written ({error}); give another folder") from None


def _write(
    pen: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont, text: str, corner: tuple[int, int], colour: Colour
) -> None:
    """Write a text on its colour above the box with this upper left corner, or inside of it where there is no room."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    margin = max(1, round((bottom - top) / 6))
    wide, high = round(right - left) + 2 * margin, round(bottom - top) + 2 * margin
    x = max(0, min(corner[0], round(pen.im.size[0]) - wide))
    y = corner[1] - high if corner[1] >= high else corner[1]
    pen.rectangle((x, y, x + wide - 1, y + high - 1), fill=colour, outline=INK)
    pen.text((x + margin - left, y + margin - top), text, fill=INK, font=font)


def font_of(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with Matplotlib and has the letters of most alphabets."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)
