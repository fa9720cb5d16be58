"""A trained network as a file for other programs: ONNX, torch.export or OpenVINO, for any number of images."""

import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from msgspec import Meta
from torch import Tensor, nn

from deepres.acceleration.folded import folded
from deepres.runtime import untrusted
from deepres.runtime.errors import InputError, Say, install, silent
from deepres.runtime.files import require_regular
from deepres.serving.agreement import Agreement, agreement
from deepres.serving.forms import ANEW, FORMS, WEIGHTS_DIGEST, Content, Facts, Form, digest, files_of, form_of
from deepres.serving.outputs import Outputs, Runner
from deepres.serving.staging import staging

LARGEST_CHANGE = 1e-4  # of a value in fp32, relative to the largest value of its output
LEAST_SAME = 0.9  # share of images whose best class stays, for int8


class _Facts(TypedDict):
    """What every file says of itself."""

    network: Annotated[str, Meta(max_length=100)]
    crop: Annotated[int, Meta(ge=1, le=4_096)]
    classes: Annotated[list[str], Meta(min_length=1, max_length=2**20)]
    precision: str
    protocol: Literal["single", "center", "10-crop", "dense"]
    input: str


class Preprocessed(nn.Module):
    """uint8 pictures (N, H, W, 3) as programs hold them, RGB, of the training crop, to the outputs of a network.

    Inside: pixels to 0..1, less the per-pixel mean image, then the network.
    """

    mean: Tensor

    def __init__(self, net: nn.Module, mean: Tensor):
        super().__init__()
        self.net = net
        self.register_buffer("mean", mean)
        self.eval()

    def forward(self, images: Tensor) -> Tensor | Outputs:
        """Pictures to outputs; scores are before softmax."""
        return self.net(images.permute(0, 3, 1, 2).float() / 255 - self.mean)


@dataclass(frozen=True)
class Inputs:
    """What a file takes, any number of images at a time, in `batches` that it is checked on.

    They are what the network takes, float32 (N, C, H, W), or with `mean` (C, H, W) uint8 (N, H, W, C), of which the
    file makes that itself. With `calibrate`, further batches, the file becomes int8.
    """

    batches: Sequence[Tensor]
    mean: Tensor | None = None
    calibrate: Iterable[Tensor] | None = None

    def of(self, net: nn.Module) -> nn.Module:
        """`net` as it takes these images."""
        return net if self.mean is None else Preprocessed(net, self.mean)


def export(net: nn.Module, out: Path, form: Form, inputs: Inputs, facts: Mapping[str, Any]) -> Agreement:
    """Write `net`, with its BN folded, to `out`, once what is read back agrees with it on the batches of `inputs`.

    `net` returns scores, or a mapping of names to tensors, which the file keeps. `facts`, plain JSON, go into the
    file. OpenVINO's weights stand beside `out`, in a file ending in .bin. Raises `InputError` where a package is
    missing, a form has no int8, the outputs differ too much, nothing can be written, or a file of another origin
    stands where that .bin is to be; what was there then stays.
    """
    int8 = inputs.calibrate is not None
    _require_writable(out, form, int8)
    try:
        with staging(out) as staged:  # OpenVINO's .bin goes before the .xml, which is nothing without it
            content = Content(inputs.of(folded(net).cpu()), inputs.batches[0], facts, inputs.calibrate)
            FORMS[form].write(content, staged)
            # Read back by its own runtime, and compared with the network as it was trained.
            run, _ = FORMS[form].read(staged)
            found = agreement(run, inputs.of(net.cpu().eval()), inputs.batches)
            _require_agreement(found, int8, out)
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error}); give another --out") from None
    return found


def _require_writable(out: Path, form: Form, int8: bool) -> None:
    """Raise `InputError` where a form cannot be written here, or would take the place of another file."""
    if lost := next((file for file in files_of(out, form) if file.exists() and not out.exists()), None):
        raise InputError(
            f"{lost} is there already and no part of an export; remove it, or give another name than {out}"
        )
    if int8 and not FORMS[form].int8:
        raise InputError(f"{form} has no int8 here; give --format onnx or openvino")
    for package in (*FORMS[form].packages, *(("onnxruntime",) if int8 else ())):
        _require_package(package, f"--format {form}")


def _require_package(package: str, what: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError:
        raise InputError(f"{what} needs the package {package}: {install('serve')}") from None


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


def open_export(file: Path, say: Say = silent) -> tuple[Runner, Facts]:
    """A file of `export`, images to outputs as its runtime computes them, and its facts.

    Raises `InputError` where the runtime is missing, and for a file that is damaged or not from here, or whose
    weights beside it are not its own. Where an older export does not say which these are, `say` is told.
    """
    form = form_of(file, None)
    _require_readable(file, form)
    # The file itself.
    try:
        run, facts = FORMS[form].read(file)
    except InputError:
        raise
    except Exception as error:  # the runtimes raise almost anything for a file that is damaged
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{file} is no whole file of deepres export ({reason}); write it again") from None
    # What it says of itself, and the weights beside it.
    if unsaid := [name for name in _Facts.__annotations__ if name not in facts]:
        raise InputError(f"{file} does not say its {unsaid[0]}, as files of deepres export do; write it with that")
    untrusted.convert(facts, _Facts, str(file), ANEW)
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
    _require_package(FORMS[form].runtime, str(file))


def _check_weights(file: Path, weights: Path, recorded: Any, say: Say) -> None:
    if recorded is None:
        say(f"{file} does not say which {weights.suffix} it belongs to, as older exports; export it again to be sure")
    elif recorded != digest(weights):
        raise InputError(
            f"{weights} is not that of {file} (an export was stopped between the two, or one was copied); export again"
        )
