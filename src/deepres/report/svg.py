"""Turn matplotlib's SVG document into an element for the page that follows its light or dark theme."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass

from deepres.report.colours import LIGHT
from deepres.runtime.printing import visible

SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"
_NAME_OF = {colour: name for name, colour in LIGHT.items()}


@dataclass(frozen=True)
class Mark:
    """A point that shows its numbers: its place in the drawing, the name of its colour, and its text."""

    x: float
    y: float
    colour: str
    text: str


def inline(document: str, prefix: str, label: str, marks: Iterable[Mark]) -> str:
    """The drawing as one `<svg>` element for a page.

    Ids get `prefix`, theme colours become CSS variables, and fonts are those of the page. Metadata and style sheets
    are removed. Each mark becomes a circle with a `<title>`.
    """
    # Remove metadata and style sheets, and rewrite all that is left.
    root = ET.fromstring(document)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == f"{SVG}metadata" or child.tag == f"{SVG}style":
                parent.remove(child)
    for element in root.iter():
        _rewrite(element, prefix)
        element.tag = element.tag.removeprefix(SVG)
    # The size is left to the page.
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"class": "plot", "role": "img", "aria-label": visible(label)}
    # The marks.
    group = ET.SubElement(root, "g", {"class": "marks"})
    for mark in marks:
        place = {"cx": f"{mark.x:g}", "cy": f"{mark.y:g}", "r": "5", "style": f"color: var(--{mark.colour})"}
        ET.SubElement(ET.SubElement(group, "circle", place), "title").text = visible(mark.text)
    return ET.tostring(root, encoding="unicode")


def _rewrite(element: ET.Element, prefix: str) -> None:
    """Ids, references, colours and fonts of one element."""
    if link := element.attrib.pop(LINK, None):
        element.set("href", link)
    for name, value in element.attrib.items():
        if name == "id":
            element.set(name, f"{prefix}-{value}")
        elif name == "href":
            element.set(name, value.replace("#", f"#{prefix}-", 1))
        elif name == "style":
            element.set(name, _themed(value))
        elif value.startswith("url(#"):
            element.set(name, value.replace("url(#", f"url(#{prefix}-", 1))


def _themed(style: str) -> str:
    """A style with theme colours as CSS variables and without a font family."""
    style = re.sub(r"#[0-9a-f]{6}", lambda found: f"var(--{_NAME_OF.get(found[0], 'page')})", style)
    style = re.sub(r"font: ([\d.]+px)[^;]*", r"font-size: \1", style)
    return re.sub(r"font-family:[^;]*;?\s*", "", style)
