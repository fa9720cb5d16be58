"""A page in the browser: drop a picture and see the predictions of several networks side by side."""

import base64
import html
import importlib
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from deepres.analysis.responses import layer_responses
from deepres.classification.scorer import AUTO, Execution, channels_and_classes, crop_of, with_channels
from deepres.classification.views import Protocol as Views
from deepres.classification.views import fitted
from deepres.data.augment import normalise
from deepres.data.decode import pixels_or_fault
from deepres.data.listing import Picture
from deepres.detection.figures import SURE
from deepres.detection.protocol import Protocol
from deepres.findings import Figure, ResponsePanel, Responses, describe
from deepres.models.detection.detector import Detector
from deepres.models.network import Network
from deepres.report import limits
from deepres.report.boxes import QUALITY, draw, of_detections
from deepres.report.plots import drawn
from deepres.report.sheets import resized
from deepres.runtime.errors import InputError, Say, install
from deepres.runtime.printing import visible
from deepres.weights.find import ready, require_mean
from deepres.workflows.detect import Sighting, Spotter, spotter
from deepres.workflows.open_network import classifier, is_detector
from deepres.workflows.predict import Prediction, Predictor, predictor

TOP = 5
COMPACT = 'style="font-size: 0.85em; font-variant-numeric: tabular-nums"'
NO_LAYERS = "<p>No 3x3 layers with batch normalization, whose responses could be shown.</p>"
ROOM, LEAST = (1200, 1200), 480  # pixels of a picture with boxes at most, and of its longer side at least


@dataclass(frozen=True)
class Drawing:
    """How a kind of prediction is shown: `component` makes Gradio's component for a label, `value` what it shows."""

    component: Callable[[Any, str], Any]
    value: Callable[[Any], Any]


def scores_by_class(prediction: Prediction) -> dict[str, float]:
    """Softmax scores by class, with control characters escaped. ImageNet has two classes of the same name."""
    named: dict[str, float] = {}
    for name, score in ((visible(name), score) for name, score in prediction.top):
        named[f"{name} (another)" if name in named else name] = score
    return named


def boxes_as_html(found: Sighting) -> str:
    """The picture with its boxes, and a table of them; of the names of classes, nothing is taken for HTML."""
    assert found.pixels is not None
    small, scale = resized(found.pixels, ROOM, max(1.0, LEAST / max(found.size)))
    marks = of_detections(found.found, found.classes)
    stream = io.BytesIO()
    draw(small, replace(marks, boxes=marks.boxes * scale)).save(stream, "JPEG", quality=QUALITY)
    source = f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
    columns = (found.found.labels.tolist(), found.found.scores.tolist(), found.found.boxes.tolist())
    rows = "".join(
        f"<tr><td>{html.escape(visible(found.classes[label]))}</td><td>{100 * score:.1f} %</td>"
        + "".join(f"<td>{edge:.0f}</td>" for edge in box)
        + "</tr>"
        for label, score, box in zip(*columns, strict=True)
    )
    head = "".join(f"<th>{name}</th>" for name in ("class", "score", "left", "top", "right", "bottom"))
    table = (
        f"<table {COMPACT}><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        if rows
        else "<p>Nothing found.</p>"
    )
    image = f'<img alt="The picture with boxes" style="max-width: 100%" src="{source}">'
    # Gradio's label lies over the first line.
    return f'<div style="margin-top: 1.5em; overflow-x: auto">{image}{table}</div>'


def _html(gradio: Any, label: str) -> Any:
    return gradio.HTML(label=label, show_label=True, container=True)


# By the class of the predictor.
DRAWINGS: dict[type, Drawing] = {
    Predictor: Drawing(lambda gradio, label: gradio.Label(num_top_classes=TOP, label=label), scores_by_class),
    Spotter: Drawing(_html, boxes_as_html),
}


@dataclass(frozen=True)
class Exhibit:
    """A network on the page, under its `label`."""

    label: str
    net: Network
    predictor: Predictor | Spotter
    drawing: Drawing


@dataclass(frozen=True)
class Sight:
    """The predictions for a picture, one per network, and the plot of layer responses as SVG."""

    drawn: tuple[Any, ...]
    responses: bytes | None


def exhibits(
    places: Sequence[Path], say: Say, network: str | None = None, execution: Execution = AUTO
) -> list[Exhibit]:
    """The networks of `places`, which are run folders or weights files; `network` names those that have no name.

    `execution` says on which device they run, and in which precision. The labels are the networks' names; networks of
    the same name are labelled by their places.
    """
    # Names, places where they are alike, and numbers where these are alike, too.
    nets = [ready(place, say, network) for place in places]
    labels = [describe(net.name)[0] for net in nets]
    pairs = zip(places, labels, strict=True)
    named = [visible(place.stem) if labels.count(label) > 1 else label for place, label in pairs]
    # A predictor for each network.
    shown: list[Exhibit] = []
    for number, (label, net) in enumerate(zip(named, nets, strict=True), 1):
        name = label if named.count(label) == 1 else f"{label} ({number})"
        own = _predictor(net, places[number - 1], execution, say)
        shown.append(Exhibit(name, net, own, DRAWINGS[type(own)]))
    return shown


def _predictor(net: Network, place: Path, execution: Execution, say: Say) -> Predictor | Spotter:
    if is_detector(net):
        return spotter([cast(Detector, net)], Protocol(threshold=SURE), execution, say)
    return predictor(classifier(net, place), execution=execution, say=say)


def look(shown: Sequence[Exhibit], file: Path) -> Sight:
    """Show the picture `file` to all networks. Raises `InputError` where one cannot take it."""
    drawings: list[Any] = []
    responses: list[Responses] = []
    for one in shown:
        # What it predicts.
        (found,) = one.predictor.predict([file])
        if found.fault is not None:
            raise InputError(f"this picture cannot be shown to {one.label}: {found.fault}")
        drawings.append(one.drawing.value(found))
        # How strongly its 3x3 layers with batch normalization respond (Fig. 7), if it has such layers.
        values = [value for _, value in _responses(one.net, file)]
        _, depth, kind = describe(one.net.name)
        responses += [Responses(one.label, depth, kind, values)] * bool(values)
    panel = ResponsePanel("Standard deviation of each 3x3 layer's response", tuple(responses))
    figure = Figure("Layer responses", "", (panel,))
    return Sight(tuple(drawings), drawn(figure, "svg") if responses else None)


def page(shown: Sequence[Exhibit]) -> Any:
    """The page, as Gradio's Blocks. Raises `InputError` where Gradio is not installed."""
    gradio = _gradio()

    def see(file: str | None) -> list[Any]:
        if file is None:
            return [None] * len(shown) + [""]
        try:
            sight = look(shown, Path(file))
        except InputError as error:
            raise gradio.Error(str(error)) from None
        return [*sight.drawn, _image(sight.responses) if classifies else ""]

    classifies = not all(is_detector(one.net) for one in shown)
    kept = (round(limits.SWEEP_SECONDS), limits.KEPT_SECONDS)
    with gradio.Blocks(title="deepres", analytics_enabled=False, delete_cache=kept) as blocks:
        gradio.Markdown(f"# deepres\nDrop a picture: {_promise(shown)}.")
        with gradio.Row():
            picture = gradio.Image(type="filepath", image_mode=None, label="Picture", height=360)
            drawings = [one.drawing.component(gradio, one.label) for one in shown]
        responses = gradio.HTML()
        picture.change(see, picture, [*drawings, responses], api_name="look")
    return blocks.queue(max_size=limits.WAITING)


def _promise(shown: Sequence[Exhibit]) -> str:
    """What the page shows, in words."""
    detectors = [is_detector(one.net) for one in shown]
    found = ["boxes around what is found"] * any(detectors)
    classes = ["the best classes, and how strongly each layer responds (Fig. 7)"] * (not all(detectors))
    return "; ".join(found + classes)


def serve(blocks: Any, host: str, port: int) -> str:
    """Serve the page from a thread of its own and return its address; `blocks.block_thread()` waits for Ctrl-C.

    The page is not shared through Gradio's servers, and `limits` bounds what visitors can make the server keep. Raises
    `InputError` where the port is taken.
    """
    try:
        blocks.launch(
            server_name=host,
            server_port=port,
            share=False,
            inbrowser=False,
            quiet=True,
            prevent_thread_lock=True,
            **limits.launch_options(blocks),
        )
    except OSError as error:
        raise InputError(f"the page cannot be served on {host}:{port} ({error}); give another --port") from None
    return f"http://{host}:{port}"


def newest_run(root: Path) -> Path:
    """The run under `root` that finished last. Raises `InputError` where there is none."""
    done = sorted(root.rglob("done.json"), key=lambda file: file.stat().st_mtime)
    if not done:
        raise InputError(f"no weights are given, and {root}/ holds no finished run; give a run or a weights file")
    return done[-1].parent


def _responses(net: Network, file: Path) -> list[tuple[str, float]]:
    """The layer responses to the center crop of the picture; none of a detector, and where it does not decode."""
    if is_detector(net):
        return []
    pixels = pixels_or_fault(Picture(str(file), 0, "test", file))
    if isinstance(pixels, str):
        return []
    crop = crop_of(net)
    view = with_channels(Views("center").views(crop)(pixels)[0], channels_and_classes(net)[0])
    device = next(net.parameters()).device
    images = normalise(view[None], fitted(require_mean(net, net.name), crop, crop)).to(device)
    return layer_responses(net, [images])


def _image(svg: bytes | None) -> str:
    if svg is None:
        return NO_LAYERS
    source = f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
    return f'<img alt="Layer responses" style="max-width: 640px; width: 100%" src="{source}">'


def _gradio() -> Any:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when it is imported
    try:
        return importlib.import_module("gradio")
    except ImportError:
        raise InputError(f"the page needs Gradio: {install('demo')}") from None
