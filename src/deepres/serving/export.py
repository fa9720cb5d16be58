"""A trained network as a file for other programs: ONNX, torch.export or OpenVINO, for any number of images."""

import hashlib
import importlib
import io
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import torch
from msgspec import Meta
from torch import Tensor, nn

from deepres.acceleration.folded import folded
from deepres.runtime import untrusted
from deepres.runtime.errors import InputError, install
from deepres.runtime.files import require_regular
from deepres.runtime.say import Say
from deepres.serving import onnx
from deepres.serving.agreement import Agreement, agreement
from deepres.serving.int8 import quantized
from deepres.serving.pytorch import Run
from deepres.serving.staging import staging

Form = Literal["onnx", "torch-export", "openvino"]
LARGEST_CHANGE = 1e-4  # of a score in fp32, relative to the largest score
LEAST_SAME = 0.9  # share of images whose best class stays, for int8
METADATA = "deepres"
WEIGHTS_DIGEST = "weights_sha256"  # in the metadata of a file whose weights are in another one
FACTS = ("network", "crop", "classes", "precision", "protocol", "input")  # that a file says of itself

ANEW = "write it again with deepres export"


class _Facts(TypedDict):
    network: Annotated[str, Meta(max_length=100)]
    crop: Annotated[int, Meta(ge=1, le=4_096)]
    classes: Annotated[list[str], Meta(min_length=1, max_length=2**20)]
    precision: str
    protocol: Literal["single", "center", "10-crop", "dense"]
    input: str


class Preprocessed(nn.Module):
    """uint8 pictures (N, H, W, 3) as programs hold them, RGB, of the training crop, to scores (N, K).

    Inside: pixels to 0..1, less the per-pixel mean image, then the network.
    """

    mean: Tensor

    def __init__(self, net: nn.Module, mean: Tensor):
        super().__init__()
        self.net = net
        self.register_buffer("mean", mean)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Pictures to scores, before softmax."""
        return self.net(images.permute(0, 3, 1, 2).float() / 255 - self.mean)


def export(
    net: nn.Module,
    out: Path,
    form: Form,
    batches: Sequence[Tensor],
    facts: Mapping[str, Any],
    *,
    mean: Tensor | None = None,
    calibrate: Iterable[Tensor] | None = None,
) -> Agreement:
    """Write `net`, with its BN folded, to `out`, once what is read back agrees with it on `batches`.

    The file takes the images of `batches`, any number at a time: as the network does, float32 (N, C, H, W), or with
    `mean` (C, H, W) uint8 (N, H, W, C), of which it makes that itself. With `calibrate`, such batches, it is int8.
    `facts`, plain JSON, go into the file. OpenVINO's weights stand beside `out`, in a file ending in .bin. Raises
    `InputError` where a package is missing, a form has no int8, the scores differ too much, nothing can be written,
    or a file of another origin stands where that .bin is to be; what was there then stays.
    """
    kind = FORMS[form]
    if lost := next((file for file in files_of(out, form) if file.exists() and not out.exists()), None):
        raise InputError(
            f"{lost} is there already and no part of an export; remove it, or give another name than {out}"
        )
    if calibrate is not None and not kind.int8:
        raise InputError(f"{form} has no int8 here; give --format onnx or openvino")
    for package in (*kind.packages, *(("onnxruntime",) if calibrate is not None else ())):
        try:
            importlib.import_module(package)
        except ImportError:
            raise InputError(f"--format {form} needs the package {package}: {install('serve')}") from None

    def whole(inner: nn.Module) -> nn.Module:
        return inner if mean is None else Preprocessed(inner, mean)

    try:
        with staging(out) as staged:  # OpenVINO's .bin goes before the .xml, which is nothing without it
            kind.write(whole(folded(net).cpu()), batches[0], calibrate, facts, staged)
            found = agreement(kind.read(staged)[0], whole(net.cpu().eval()), batches)
            _require(found, calibrate is not None, out)
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error}); give another --out") from None
    return found


def read(file: Path, say: Say = lambda message: None) -> tuple[Run, dict[str, Any]]:
    """A file of `export`, images to scores as its runtime computes them, and its facts.

    Raises `InputError` where the runtime is missing, and for a file that is damaged or not from here, or whose
    weights beside it are not its own. Where an older export does not say which these are, `say` is told.
    """
    form = form_of(file, None)
    kind = FORMS[form]
    for part in files_of(file, form):
        try:
            require_regular(part)
        except FileNotFoundError:
            raise InputError(f"there is no file {part}; write one with deepres export") from None
        except OSError as error:
            raise InputError(f"{part} is {error.strerror}; {ANEW}") from None
    try:
        importlib.import_module(kind.runtime)
    except ImportError:
        raise InputError(f"{file} needs the package {kind.runtime}: {install('serve')}") from None
    try:
        run, facts = kind.read(file)
    except InputError:
        raise
    except Exception as error:  # the runtimes raise almost anything for a file that is damaged
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{file} is no whole file of deepres export ({reason}); write it again") from None
    if unsaid := [name for name in FACTS if name not in facts]:
        raise InputError(f"{file} does not say its {unsaid[0]}, as files of deepres export do; write it with that")
    untrusted.convert(facts, _Facts, str(file), ANEW)
    for weights in files_of(file, form)[1:]:
        _check_weights(file, weights, facts.get(WEIGHTS_DIGEST), say)
    return run, facts


def _check_weights(file: Path, weights: Path, digest: Any, say: Say) -> None:
    if digest is None:
        say(f"{file} does not say which {weights.suffix} it belongs to, as older exports; export it again to be sure")
    elif digest != _digest(weights):
        raise InputError(
            f"{weights} is not that of {file} (an export was stopped between the two, or one was copied); export again"
        )


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _require(found: Agreement, int8: bool, out: Path) -> None:
    if int8 and not found.same >= LEAST_SAME:
        raise InputError(
            f"in int8 only {found.same:.0%} of {found.images} pictures keep their best class ({LEAST_SAME:.0%} are "
            f"needed), so {out} was not kept; give more pictures to --calibrate, or leave --int8 out"
        )
    if not int8 and not found.change <= LARGEST_CHANGE:
        raise InputError(
            f"the scores of the file differ from the network's by {found.change:.1e} of the largest "
            f"({LARGEST_CHANGE:.0e} are allowed), so {out} was not kept; give another --format"
        )


def _onnx_model(net: nn.Module, example: Tensor, calibrate: Iterable[Tensor] | None) -> bytes:
    model = onnx.exported(net, example)
    return model if calibrate is None else quantized(model, calibrate)


def _write_onnx(net: nn.Module, example: Tensor, calibrate: Iterable[Tensor] | None, facts: Any, file: Path) -> None:
    import onnx as package

    model = package.load_model_from_string(_onnx_model(net, example, calibrate))
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}
    package.helper.set_model_props(model, {f"{METADATA}.{key}": text for key, text in texts.items()})
    file.write_bytes(model.SerializeToString())


def _write_openvino(
    net: nn.Module, example: Tensor, calibrate: Iterable[Tensor] | None, facts: Any, file: Path
) -> None:
    import openvino

    model = openvino.Core().read_model(_onnx_model(net, example, calibrate))
    try:
        openvino.save_model(model, file, compress_to_fp16=False)
        # Once more, to say which weights it belongs to: they are two files, of which one may be another's.
        model.set_rt_info(json.dumps(dict(facts) | {WEIGHTS_DIGEST: _digest(file.with_suffix(".bin"))}), METADATA)
        openvino.save_model(model, file, compress_to_fp16=False)
    except RuntimeError as error:  # of a full disk it says no more than "iostream error"
        free = shutil.disk_usage(file.parent).free / 2**20
        raise OSError(f"{str(error).splitlines()[0]} of OpenVINO, with {free:.0f} MiB free on the disk") from None


def _write_program(net: nn.Module, example: Tensor, calibrate: object, facts: Any, file: Path) -> None:
    two = example[:1].repeat_interleave(2, 0)  # torch.export would keep a number of one image for good
    net = net.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    program = torch.export.export(net, (two,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    buffer = io.BytesIO()  # on a full disk PyTorch's own writer ends the process
    torch.export.save(program, buffer, extra_files={f"{METADATA}.json": json.dumps(facts)})
    file.write_bytes(buffer.getvalue())


def _read_onnx(file: Path) -> tuple[Run, dict[str, Any]]:
    run, texts = onnx.onnxruntime_opened(file.read_bytes())
    facts: dict[str, Any] = {name.removeprefix(f"{METADATA}."): text for name, text in texts.items()}
    values = {name: _decoded(facts[name], file) for name in ("classes", "crop") if name in facts}
    return run, facts | values


def _read_openvino(file: Path) -> tuple[Run, dict[str, Any]]:
    import openvino

    core = openvino.Core()
    model = core.read_model(file)
    # Of the file as it is: by default OpenVINO computes in bf16 where the processor does.
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    facts = _decoded(model.get_rt_info([METADATA]).value, file)
    return lambda images: torch.from_numpy(compiled(images.contiguous().numpy())[0].copy()), facts


def _read_program(file: Path) -> tuple[Run, dict[str, Any]]:
    extra = {f"{METADATA}.json": ""}
    program = torch.export.load(file, extra_files=extra).module()
    return program, _decoded(extra[f"{METADATA}.json"], file)


def _decoded(text: Any, file: Path) -> Any:
    """A value of the metadata: a text in all forms, but bytes where a form keeps them."""
    content = text if isinstance(text, str | bytes) else json.dumps(text)
    return untrusted.decode(content, object, f"the metadata of {file}", ANEW)


@dataclass(frozen=True)
class _Kind:
    suffix: str
    beside: tuple[str, ...]  # suffixes of what is written with it
    packages: tuple[str, ...]
    runtime: str
    int8: bool
    write: Callable[[nn.Module, Tensor, Iterable[Tensor] | None, Any, Path], None]
    read: Callable[[Path], tuple[Run, dict[str, Any]]]


FORMS: dict[Form, _Kind] = {
    "onnx": _Kind(".onnx", (), ("onnx", "onnxscript", "onnxruntime"), "onnxruntime", True, _write_onnx, _read_onnx),
    "torch-export": _Kind(".pt2", (), (), "torch", False, _write_program, _read_program),
    "openvino": _Kind(
        ".xml", (".bin",), ("onnx", "onnxscript", "openvino"), "openvino", True, _write_openvino, _read_openvino
    ),
}


def files_of(out: Path, form: Form) -> list[Path]:
    """The files that an export to `out` is made of."""
    return [out, *(out.with_suffix(suffix) for suffix in FORMS[form].beside)]


def form_of(out: Path, form: Form | None) -> Form:
    """The form of a file by its name, where it is not given. Raises `InputError` for a name that does not fit."""
    chosen: Form | None = form or next((name for name, kind in FORMS.items() if kind.suffix == out.suffix), None)
    if chosen is None or FORMS[chosen].suffix != out.suffix:
        endings = ", ".join(f"{kind.suffix} ({name})" for name, kind in FORMS.items())
        raise InputError(f"{out} does not end as its format does; end the name in one of {endings}")
    return chosen
