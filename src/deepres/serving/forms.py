"""The forms of an exported file, each with its writer and its reader: ONNX, torch.export and OpenVINO."""

import hashlib
import io
import json
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from deepres.runtime import untrusted
from deepres.runtime.errors import InputError
from deepres.serving import onnx, openvino
from deepres.serving.int8 import onnx_model
from deepres.serving.outputs import Runner, named

Form = Literal["onnx", "torch-export", "openvino"]
Facts = dict[str, Any]  # the metadata of a file, as plain JSON
METADATA = "deepres"
WEIGHTS_DIGEST = "weights_sha256"  # metadata of a file whose weights lie in a second file
STRUCTURED = ("classes", "crop", "detector", "category_ids")  # metadata that is more than a text
ANEW = "write it again with deepres export"


@dataclass(frozen=True)
class Content:
    """The content of an exported file: its metadata, and the network as the functions give it that are called."""

    facts: Mapping[str, Any]
    onnx: Callable[[], bytes]
    program: Callable[[], torch.export.ExportedProgram]


def content_of(
    net: nn.Module, example: Tensor, facts: Mapping[str, Any], calibrate: Iterable[Tensor] | None = None
) -> Content:
    """The content of a file that takes batches like `example`, of any size, of a network with its BN folded.

    With `calibrate`, batches (N, C, H, W) that give the ranges of its maps, it is quantized to int8.
    """
    return Content(facts, partial(onnx_model, net, example, calibrate), partial(_program_of, net, example))


def _write_onnx(content: Content, file: Path) -> None:
    import onnx as package

    model = package.load_model_from_string(content.onnx())
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in content.facts.items()}
    package.helper.set_model_props(model, {f"{METADATA}.{key}": text for key, text in texts.items()})
    file.write_bytes(model.SerializeToString())


def _read_onnx(file: Path, device: str) -> tuple[Runner, Facts]:
    run, texts = onnx.onnxruntime_opened(file.read_bytes(), "cpu" if device == "cpu" else "cuda")
    facts: Facts = {name.removeprefix(f"{METADATA}."): text for name, text in texts.items()}
    values = {name: _decoded(facts[name], file) for name in STRUCTURED if name in facts}
    return run, facts | values


def _write_openvino(content: Content, file: Path) -> None:
    from openvino import Core, save_model

    model = Core().read_model(content.onnx())
    try:
        save_model(model, file, compress_to_fp16=False)
        # Saved once more with the digest of the weights, which lie in a file of their own that can be swapped.
        facts = dict(content.facts) | {WEIGHTS_DIGEST: digest(file.with_suffix(".bin"))}
        model.set_rt_info(json.dumps(facts), METADATA)
        save_model(model, file, compress_to_fp16=False)
        Core().read_model(file)  # before 2026.4, half a file is written without an error
    except RuntimeError as error:  # where the disk is full, it says only "iostream error"
        free = shutil.disk_usage(file.parent).free / 2**20
        raise OSError(
            f"{str(error).strip().splitlines()[-1]} of OpenVINO, with {free:.0f} MiB free on the disk"
        ) from None


def _read_openvino(file: Path, device: str) -> tuple[Runner, Facts]:
    from openvino import Core

    core = Core()
    model = core.read_model(file)
    # In fp32, as the file is: by default OpenVINO computes in bf16 where the processor does.
    compiled = openvino.compiled_for(core, model, {"INFERENCE_PRECISION_HINT": "f32"})
    return openvino.runner_of(compiled), _decoded(model.get_rt_info([METADATA]).value, file)


def _program_of(net: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    two = example[:1].repeat_interleave(2, 0)  # for a single image, torch.export would fix the batch size at 1
    net = net.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    return torch.export.export(net, (two,), dynamic_shapes=({0: torch.export.Dim("batch")},))


def _write_program(content: Content, file: Path) -> None:
    buffer = io.BytesIO()  # where the disk is full, PyTorch's own writer ends the process
    torch.export.save(content.program(), buffer, extra_files={f"{METADATA}.json": json.dumps(content.facts)})
    file.write_bytes(buffer.getvalue())


def _read_program(file: Path, device: str) -> tuple[Runner, Facts]:
    extra = {f"{METADATA}.json": ""}
    with warnings.catch_warnings():  # PyTorch 2.11 warns of its own buffers
        warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
        program = torch.export.load(file, extra_files=extra).module()
    return lambda images: named(program(images)), _decoded(extra[f"{METADATA}.json"], file)


def _decoded(text: Any, file: Path) -> Any:
    """A value of the metadata, decoded from JSON: forms give it as text, as bytes or as parsed already."""
    content = text if isinstance(text, str | bytes) else json.dumps(text)
    return untrusted.decode(content, object, f"the metadata of {file}", ANEW)


def digest(file: Path) -> str:
    """The SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class FormKind:
    """A form: the suffix of its file and of files beside it, the packages it needs, and whether it has int8.

    `read` opens a file for a device: `cpu`, or `cuda` where `on_gpu` holds.
    """

    suffix: str
    beside: tuple[str, ...]
    packages: tuple[str, ...]  # that write it
    runtime: str  # package that runs it
    int8: bool
    on_gpu: bool
    write: Callable[[Content, Path], None]
    read: Callable[[Path, str], tuple[Runner, Facts]]


FORMS: dict[Form, FormKind] = {
    "onnx": FormKind(
        ".onnx", (), ("onnx", "onnxscript", "onnxruntime"), "onnxruntime", True, True, _write_onnx, _read_onnx
    ),
    "torch-export": FormKind(".pt2", (), (), "torch", False, False, _write_program, _read_program),
    "openvino": FormKind(
        ".xml", (".bin",), ("onnx", "onnxscript", "openvino"), "openvino", True, False, _write_openvino, _read_openvino
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
