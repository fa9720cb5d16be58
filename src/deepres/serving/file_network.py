"""Networks in files of `deepres export --preprocess`, run as other programs run them."""

from pathlib import Path

import torch
from torch import Tensor

from deepres.models.network import Network
from deepres.runtime.device import resolve_device
from deepres.runtime.errors import InputError, Say, reason_of, require_packages
from deepres.serving.export import open_export
from deepres.serving.forms import ANEW, FORMS, form_of
from deepres.serving.onnx import require_provider
from deepres.serving.outputs import SCORES, Runner

SUFFIXES = (".onnx", ".xml")


class FileNetwork(Network):
    """RGB images in 0..1 (N, 3, crop, crop) to scores (N, K), computed by the file's runtime from uint8 pictures."""

    in_file = True
    run: Runner
    place = "cpu"  # where its runtime computes

    def forward(self, x: Tensor) -> Tensor:
        """The scores; rounding restores exactly the uint8 pixels that `normalise` divided by 255."""
        pixels = (x.to(self.place) * 255).round().byte()
        return self.run(pixels.permute(0, 2, 3, 1).contiguous())[SCORES].to(x.device)


def open_file(file: Path, say: Say, device: str = "cpu") -> Network:
    """The network in a file of `deepres export --preprocess`, for ONNX Runtime or OpenVINO; a detector in any export.

    With the device `auto` it computes on a GPU where its runtime can, and `say` is told where it cannot. Raises
    `InputError` for a file that `deepres export` did not write, that takes no uint8 pictures, or whose runtime is
    not installed, or does not run on the `device` given.
    """
    place = _place(file, device, say)
    run, facts = open_export(file, say, place)
    if "detector" in facts:
        from deepres.serving.file_detector import file_detector  # loads torchvision, which takes seconds

        if place != "cpu":
            say(f"{file} is a detector, which its runtime computes on the processor")
            run, facts = open_export(file, say)
        return file_detector(file, run, facts)
    if not str(facts["input"]).startswith("uint8"):
        raise InputError(f"{file} takes images less a mean that is not in it; export it again with --preprocess")
    crop, classes = facts["crop"], facts["classes"]
    try:
        scores = run(torch.zeros(1, crop, crop, 3, dtype=torch.uint8, device=place))[SCORES]
    except Exception as error:  # each runtime raises errors of its own
        reason = reason_of(error)
        raise InputError(f"{file} does not take pictures of {crop} pixels, as it says ({reason}); {ANEW}") from None
    if scores.shape != (1, len(classes)):
        raise InputError(f"{file} names {len(classes)} classes, and gives scores {tuple(scores.shape[1:])}; {ANEW}")
    net = FileNetwork()
    net.name, net.run, net.place = facts["network"], run, place
    net.header = {"network": net.name, "classes": classes, "num_classes": len(classes), "in_channels": 3}
    net.header |= {name: facts[name] for name in ("precision", "protocol")} | {"device": place}
    net.mean = torch.zeros(3, crop, crop)  # the file subtracts the mean image itself
    return net


def _place(file: Path, device: str, say: Say) -> str:
    """The device that the runtime of a file computes on: `cuda` where that is asked for, or `auto` and possible."""
    if resolve_device(device) != "cuda":
        return "cpu"
    try:
        if not FORMS[form_of(file, None)].on_gpu:
            raise InputError(f"{file} is for a processor; give --device cpu, or a file in .onnx")
        require_packages(["onnxruntime"], f"{file} needs", "serve")
        require_provider("cuda", f"{file} on a GPU")
    except InputError as trouble:
        if device != "auto":
            raise
        say(f"{trouble}; it runs on the processor")
        return "cpu"
    return "cuda"
