"""A trained network as a file for other programs: ONNX, torch.export or OpenVINO, for any number of images."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from torch import Tensor, nn

from deepres.acceleration.folded import folded
from deepres.runtime import untrusted
from deepres.runtime.errors import InputError, Say, reason_of, require_packages, silent
from deepres.runtime.files import require_regular
from deepres.runtime.untrusted import Meta
from deepres.serving.agreement import Agreement, agreement
from deepres.serving.forms import ANEW, FORMS, WEIGHTS_DIGEST, Facts, Form, content_of, digest, files_of, form_of
from deepres.serving.outputs import Outputs, Runner
from deepres.serving.staging import staging

LARGEST_CHANGE = 1e-4  # of a value in fp32, relative to the largest value of its output
LEAST_SAME = 0.9  # share of images whose best class stays, for int8


class _Facts(TypedDict):
    """The metadata that every file must have."""

    network: Annotated[str, Meta(max_length=100)]
    crop: Annotated[int, Meta(ge=1, le=4_096)]
    classes: Annotated[list[str], Meta(min_length=1, max_length=2**20)]
    precision: str
    protocol: Literal["single", "center", "10-crop", "dense"]
    input: str


class _DetectorFacts(TypedDict):
    """The metadata that every file of a detector must have."""

    network: Annotated[str, Meta(max_length=100)]
    classes: Annotated[list[str], Meta(min_length=1, max_length=2**20)]
    precision: str
    detector: dict[str, Any]
    input: str


class Preprocessed(nn.Module):
    """A network that takes uint8 RGB pictures (N, H, W, 3) of the training crop.

    It scales the pixels to 0..1, subtracts the mean image, and runs the network.
    """

    mean: Tensor

    def __init__(self, net: nn.Module, mean: Tensor):
        super().__init__()
        self.net = net
        self.register_buffer("mean", mean)
        self.eval()

    def forward(self, images: Tensor) -> Tensor | Outputs:
        """The outputs of the network for pictures; scores are before softmax."""
        return self.net(images.permute(0, 3, 1, 2).float() / 255 - self.mean)


@dataclass(frozen=True)
class Inputs:
    """The `batches` that an exported file is checked on, in the form that the file takes.

    That is float32 (N, C, H, W) less the mean image; with `mean` (C, H, W) it is uint8 (N, H, W, C), and the file
    scales and subtracts the mean image itself. With `calibrate`, further batches, the file is quantized to int8.
    """

    batches: Sequence[Tensor]
    mean: Tensor | None = None
    calibrate: Iterable[Tensor] | None = None

    def of(self, net: nn.Module) -> nn.Module:
        """`net`, or with `mean` a network that prepares its images itself."""
        return net if self.mean is None else Preprocessed(net, self.mean)


def export(net: nn.Module, out: Path, form: Form, inputs: Inputs, facts: Mapping[str, Any]) -> Agreement:
    """Write `net`, with its BN folded, to `out`, after checking what is read back on the batches of `inputs`.

    `net` returns scores, or a mapping of names to tensors, and the file keeps the names. `facts` (plain JSON) become
    its metadata. OpenVINO's weights lie beside `out`, in a file ending in .bin. Raises `InputError` where a package is
    missing, a form has no int8, the outputs differ too much, nothing can be written, or a file of another origin has
    the name of that .bin; files that existed before are then kept.
    """
    int8 = inputs.calibrate is not None
    require_writable(out, form, int8)
    try:
        with staging(out) as staged:  # OpenVINO's .bin is put in place before the .xml, which needs it
            content = content_of(inputs.of(folded(net).cpu()), inputs.batches[0], facts, inputs.calibrate)
            FORMS[form].write(content, staged)
            # Read back by its own runtime, and compared with the network as it was trained.
            run, _ = FORMS[form].read(staged, "cpu")
            found = agreement(run, inputs.of(net.cpu().eval()), inputs.batches)
            _require_agreement(found, int8, out)
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error}); give another --out") from None
    return found


def require_writable(out: Path, form: Form, int8: bool) -> None:
    """Raise `InputError` where a form cannot be written here, or would overwrite another file."""
    if lost := next((file for file in files_of(out, form) if file.exists() and not out.exists()), None):
        raise InputError(
            f"{lost} is there already and no part of an export; remove it, or give another name than {out}"
        )
    if int8 and not FORMS[form].int8:
        raise InputError(f"{form} has no int8 here; give --format onnx or openvino")
    require_packages((*FORMS[form].packages, *["onnxruntime"] * int8), f"--format {form} needs", "serve")


def _require_agreement(found: Agreement, int8: bool, out: Path) -> None:
    if int8 and found.same is None:
        raise InputError(f"int8 is checked by the best class, and {out} has no scores; leave --int8 out")
    if int8 and not (found.same or 0) >= LEAST_SAME:
        raise InputError(
            f"in int8 only {found.same:.0%} of {found.images} pictures keep their best class ({LEAST_SAME:.0%} are "
            f"needed), so {out} was not kept; give more pictures to --calibrate, or leave --int8 out"
        )
    if not int8 and not found.change <= LARGEST_CHANGE:
        raise InputError(
            f"the scores of the file differ from the network's by {found.change:.1e} of the largest "
            f"({LARGEST_CHANGE:.0e} are allowed), so {out} was not kept; give another --format"
        )


def open_export(file: Path, say: Say = silent, device: str = "cpu") -> tuple[Runner, Facts]:
    """An exported file as a function from images to outputs on `device`, computed by its runtime; and its metadata.

    Raises `InputError` where the runtime is missing, for a file that is damaged or was not written by `export`, and
    where the weights beside it belong to another file. `say` is told of an older export that does not name its weights.
    """
    form = form_of(file, None)
    _require_readable(file, form)
    # Read the file.
    try:
        run, facts = FORMS[form].read(file, device)
    except InputError:
        raise
    except Exception as error:  # the runtimes raise errors of many kinds for a damaged file
        raise InputError(f"{file} is no whole file of deepres export ({reason_of(error)}); write it again") from None
    # Check its metadata, and the weights beside it.
    needed = _DetectorFacts if "detector" in facts else _Facts
    if unsaid := [name for name in needed.__annotations__ if name not in facts]:
        raise InputError(f"{file} does not say its {unsaid[0]}, as files of deepres export do; write it with that")
    untrusted.convert(facts, needed, str(file), ANEW)
    for weights in files_of(file, form)[1:]:
        _check_weights(file, weights, facts.get(WEIGHTS_DIGEST), say)
    return run, facts


def _require_readable(file: Path, form: Form) -> None:
    """Raise `InputError` where a part of an export is missing or no regular file, or its runtime is missing."""
    for part in files_of(file, form):
        try:
            require_regular(part)
        except FileNotFoundError:
            raise InputError(f"there is no file {part}; write one with deepres export") from None
        except OSError as error:
            raise InputError(f"{part} is {error.strerror}; {ANEW}") from None
    require_packages([FORMS[form].runtime], f"{file} needs", "serve")


def _check_weights(file: Path, weights: Path, recorded: Any, say: Say) -> None:
    if recorded is None:
        say(f"{file} does not say which {weights.suffix} it belongs to, as older exports; export it again to be sure")
    elif recorded != digest(weights):
        raise InputError(
            f"{weights} is not that of {file} (an export was stopped between the two, or one was copied); export again"
        )
