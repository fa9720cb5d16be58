"""Reads XML that strangers may have written: no entities, no deep nesting, no huge file."""

from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from deepres.runtime.files import read_bytes

MOST_BYTES = 2**24
DEEPEST = 32  # levels of elements; annotations of VOC have four


def read_xml(file: Path) -> Element:
    """The root element of an XML file.

    Raises `OSError` for what is not a regular file of at most `MOST_BYTES`, and `ValueError` for what is not XML, is
    nested deeper than `DEEPEST`, or declares a document type: its entities could expand to any size.
    """
    builder, parser = TreeBuilder(), expat.ParserCreate()
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} deep")
        builder.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name)

    def refuse(*_: object) -> None:
        raise ValueError("it declares a document type, whose entities could expand to any size")

    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(read_bytes(file, MOST_BYTES), True)
    except (expat.ExpatError, LookupError) as error:  # LookupError: an encoding that Python does not know
        raise ValueError(f"it is not XML: {error}") from None
    return builder.close()
