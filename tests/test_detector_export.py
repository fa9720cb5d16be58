"""Detectors exported whole, for ONNX Runtime, OpenVINO and PyTorch: the same detections in pictures of any size."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torchvision.ops import roi_align, roi_pool
from torchvision.utils import save_image

from deepres.models.detection.images import fitted
from deepres.models.detection.outputs import Detections
from deepres.models.detection.proposals import TEST
from deepres.runtime.errors import InputError, silent
from deepres.serving.detector_graph import DetectorGraph, suppress_apart, suppress_by_group
from deepres.serving.engine import engine
from deepres.serving.export import open_export
from deepres.serving.export_detector import WHOLE_PROGRAMS, agreement, export_detector
from deepres.serving.forms import form_of
from deepres.workflows.open_network import open_network
from small_detectors import CLASSES, pictures, small, written

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

PROGRAMS = torch.__version__ >= WHOLE_PROGRAMS  # whether a detector can be written as a program of PyTorch
# Longer sides within 160 and 8 more than a multiple of 16, upright, wide, tiny, and as small as a map can be.
PICTURES = pictures((96, 160), (120, 90), (40, 64), (300, 200), (33, 200))
ONCE = {"threshold": 0.0}  # a file that keeps every score is written once, and one of another threshold twice


@pytest.fixture(scope="module")
def net():
    return small()


@pytest.fixture(scope="module")
def files(net, tmp_path_factory):
    """The detector in each form, through the command line's own functions."""
    from deepres.workflows.export import ExportOptions, deploy

    place = tmp_path_factory.mktemp("files")
    forms = (("onnx", "onnx"), ("openvino", "xml"), *[("torch-export", "pt2")] * PROGRAMS)
    made = {form: place / f"net.{end}" for form, end in forms}
    facts = {form: deploy(net, file, ExportOptions(form), silent) for form, file in made.items()}
    return made, facts


def assert_near(found, expected):
    """The same detections, to a hundredth of a pixel, in the same order up to ties.

    Two regions that are pooled from the same positions tie; where the last place is theirs, either may have it.
    """
    assert len(expected) and len(found) == len(expected)
    sure = [own.scores > expected.scores[-1] + 1e-5 for own in (found, expected)]
    kept = [
        Detections(own.boxes[more], own.scores[more], own.labels[more])
        for own, more in zip((found, expected), sure, strict=True)
    ]
    told = agreement(kept[:1], kept[1:])
    assert told.detections >= 2 * (len(expected) - 2) and told.same == 1, told
    assert told.shift < 0.01 and told.change < 1e-4, told


@pytest.mark.long
@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_a_file_finds_what_the_detector_finds_in_pictures_of_any_size(net, files, form):
    file = open_network(files[0][form], silent)
    assert file.name == net.name and file.plan == net.plan and file.header["classes"] == list(CLASSES)
    every = net.detect(PICTURES)
    assert torch.cat([expected.labels for expected in every]).unique().tolist() == [0, 1, 2]
    for found, expected in zip(file.detect(PICTURES), every, strict=True):
        assert_near(found, expected)


@pytest.mark.long
def test_the_check_at_export_sees_detections_of_any_score(files):
    for form, facts in files[1].items():
        assert facts["format"] == form and facts["same_detections"] >= 0.95
        assert facts["detections_checked"] == 60 and facts["largest_shift"] < 0.01  # 20 of each of three pictures


@pytest.mark.skipif(PROGRAMS, reason="this PyTorch makes programs for pictures of any size")
def test_a_program_for_some_sizes_alone_is_refused(net, tmp_path):
    with pytest.raises(InputError, match=r"makes programs for pictures of some sizes alone; write net\.onnx"):
        export_detector(net, tmp_path / "net.pt2", "torch-export", PICTURES[:1], {})


@pytest.mark.long
@pytest.mark.skipif(not PROGRAMS, reason="PyTorch before 2.14 makes programs for pictures of some sizes alone")
def test_a_program_of_pytorch_finds_what_the_detector_finds(net, files):
    program = torch.export.load(files[0]["torch-export"]).module()
    for picture, expected in zip(PICTURES, net.detect(PICTURES), strict=True):
        seen = fitted(picture, net.plan.side, net.plan.longest)
        found = program(seen.permute(1, 2, 0)[None].contiguous())
        scale = torch.tensor([picture.shape[2] / seen.shape[2], picture.shape[1] / seen.shape[1]]).repeat(2)
        assert_near(Detections(found["boxes"] * scale, found["scores"], found["labels"]), expected)


@pytest.mark.long
def test_a_file_tells_other_programs_what_it_takes_and_gives(net, files):
    session = onnxruntime.InferenceSession(files[0]["onnx"])
    told = {key.removeprefix("deepres."): text for key, text in session.get_modelmeta().custom_metadata_map.items()}
    assert json.loads(told["classes"]) == list(CLASSES)
    assert json.loads(told["detector"])["threshold"] == 0.2 and json.loads(told["detector"])["longest"] == 160
    assert "shorter side 96, longer at most 160" in told["input"] and "less the mean" in told["input"]
    assert [value.name for value in session.get_inputs()] == ["images"]
    assert session.get_inputs()[0].shape == [1, "height", "width", 3]
    assert [(value.name, value.shape) for value in session.get_outputs()] == [
        ("boxes", ["detections", 4]),
        ("scores", ["detections"]),
        ("labels", ["detections"]),
    ]


@pytest.mark.long
@pytest.mark.parametrize(
    ("plan", "name"),
    [
        ({"threshold": 1.0}, "net.onnx"),
        (ONCE | {"smallest": 8192.0}, "net.onnx"),
        (ONCE | {"smallest": 8192.0}, "net.xml"),
    ],
    ids=["no detections", "no proposals", "no proposals in OpenVINO"],
)
def test_a_file_may_find_nothing(tmp_path, plan, name):
    from deepres.workflows.export import ExportOptions, deploy

    deploy(small("faster-rcnn-resnet8", **plan), tmp_path / name, ExportOptions(form_of(tmp_path / name, None)), silent)
    for found in open_network(tmp_path / name, silent).detect(PICTURES[:2]):
        assert found.boxes.shape == (0, 4) and found.scores.shape == found.labels.shape == (0,)


@pytest.mark.long
@pytest.mark.parametrize(
    ("network", "plan"),
    [
        ("faster-rcnn-resnet18", {"context": True, "pooling": "align"}),
        ("faster-rcnn-resnet20", {"context": True, "region_size": 4}),
        ("faster-rcnn-googlenet", {"anchor_ratios": (1.0,)}),
    ],
    ids=["align and context", "small backbone", "googlenet"],
)
def test_every_kind_of_detector_is_exported(tmp_path, network, plan):
    from deepres.workflows.export import ExportOptions, deploy

    net = small(network, **ONCE, **plan)
    deploy(net, tmp_path / "net.onnx", ExportOptions("onnx"), silent)
    file = open_network(tmp_path / "net.onnx", silent)
    for found, expected in zip(file.detect(PICTURES[:3]), net.detect(PICTURES[:3]), strict=True):
        assert_near(found, expected)


def of_one_operation(name, boxes, maps, size, scale):
    """What ONNX Runtime makes of regions of maps by MaxRoiPool or RoiAlign."""
    import onnx
    from onnx import TensorProto, helper

    inputs = {"maps": maps, "boxes": boxes}
    if name == "MaxRoiPool":
        how = {"pooled_shape": [size, size], "spatial_scale": scale}
    else:
        inputs = {"maps": maps, "boxes": boxes[:, 1:], "images": boxes[:, 0].long()}
        how = {"output_height": size, "output_width": size, "spatial_scale": scale, "sampling_ratio": 0}
        how["coordinate_transformation_mode"] = "half_pixel"
    kinds = {torch.float32: TensorProto.FLOAT, torch.int64: TensorProto.INT64}
    graph = helper.make_graph(
        [helper.make_node(name, [*inputs], ["out"], **how)],
        "one",
        [helper.make_tensor_value_info(key, kinds[value.dtype], value.shape) for key, value in inputs.items()],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", "c", "h", "w"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return torch.from_numpy(session.run(None, {key: value.contiguous().numpy() for key, value in inputs.items()})[0])


def regions(count=400):
    """Regions in pixels of a 12x17 map of stride 16: by chance, on halves, empty, and beyond the border."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(count, 2, 2, generator=generator) * torch.tensor([272.0, 192.0])
    boxes = torch.cat([corners.amin(1), corners.amax(1)], 1)
    halves = (boxes / 8).round() * 8  # (x - 8) / 16 and x / 16 end in .0 or .5
    special = torch.tensor([[0.0, 0, 272, 192], [40, 40, 40, 40], [8, 8, 9, 9], [200, 100, 300, 260]])
    boxes = torch.cat([boxes, halves, halves + torch.tensor([0.0, 0, 1, 1]), special])
    return torch.cat([boxes.new_zeros(len(boxes), 1), boxes], 1)


MAPS = torch.randn(1, 3, 12, 17, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [1, 7, 14])
def test_regions_are_pooled_in_onnx_as_in_torchvision_also_where_edges_end_in_a_half(size):
    boxes = regions()
    assert of_one_operation("MaxRoiPool", boxes, MAPS, size, 1 / 16).equal(roi_pool(MAPS, boxes, size, 1 / 16))


@pytest.mark.parametrize("size", [1, 7, 14])
def test_regions_are_aligned_in_onnx_as_in_torchvision(size):
    boxes = regions()
    expected = roi_align(MAPS, boxes, size, 1 / 16, aligned=True)
    assert of_one_operation("RoiAlign", boxes, MAPS, size, 1 / 16).allclose(expected, atol=1e-5)


def test_the_region_of_a_whole_map_is_the_map_itself_also_in_onnx():
    maps = torch.randn(1, 2, 14, 14, generator=torch.Generator().manual_seed(2))
    whole = torch.tensor([[0.0, 0, 0, 14, 14]])
    assert roi_align(maps, whole, 14, 1.0, sampling_ratio=1, aligned=True).allclose(maps, atol=1e-6)
    assert of_one_operation("RoiAlign", whole, maps, 14, 1.0).allclose(maps, atol=1e-6)
    last = torch.tensor([[0.0, 0, 0, 13, 13]])  # of MaxRoiPool, the last position
    assert of_one_operation("MaxRoiPool", last, maps, 14, 1.0).equal(maps)


def test_an_aligned_region_between_positions_is_bilinear_also_in_onnx():
    maps = torch.arange(30.0).view(1, 1, 5, 6)
    box = torch.tensor([[0.0, 1.5, 0.5, 3.5, 2.5]])  # pixels k to k + 1: samples at 2, 3 and 1, 2 of the edges
    found = of_one_operation("RoiAlign", box, maps, 2, 1.0)
    by_hand = torch.tensor([[[[maps[0, 0, y : y + 2, x : x + 2].mean() for x in (1, 2)] for y in (0, 1)]]])
    assert found.allclose(by_hand) and roi_align(maps, box, 2, 1.0, aligned=True).allclose(by_hand)


def test_suppression_by_group_equals_one_group_after_another():
    from torchvision.ops import nms

    generator = torch.Generator().manual_seed(3)
    corners = torch.rand(4, 60, 2, 2, generator=generator) * 1000
    boxes = torch.cat([corners.amin(2), corners.amax(2)], 2)
    scores = torch.rand(4, 60, generator=generator)
    for suppress in (suppress_apart, suppress_by_group):
        groups, places = suppress(boxes, scores, 0.3, 0.2, 60).unbind(1)
        for group in range(4):
            usable = (scores[group] > 0.2).nonzero().flatten()
            expected = usable[nms(boxes[group][usable], scores[group][usable], 0.3)]
            assert places[groups == group].equal(expected) and len(expected) < len(usable)
        assert suppress(boxes[:, :0], scores[:, :0], 0.3, 0.2, 60).shape == (0, 2)


def test_the_graph_gives_the_detections_of_the_network(net):
    graph = DetectorGraph(net, net.mean, suppress_apart)
    for picture in PICTURES:
        seen = fitted(picture, net.plan.side, net.plan.longest)
        found = graph(seen.permute(1, 2, 0)[None])
        expected = net.detect_fitted(seen, seen.shape[1:], net.mean)
        assert_near(Detections(found["boxes"], found["scores"], found["labels"]), expected)


def test_agreement_tells_other_boxes_scores_and_classes_apart():
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40]])
    one = Detections(boxes, torch.tensor([0.9, 0.8]), torch.tensor([0, 1]))
    assert agreement([one], [one]) == agreement([one, one], [one, one]).__class__(1, 4, 1.0, 0.0, 0.0)
    for other in (
        replace(one, boxes=boxes + torch.tensor([[0.0], [0.2]])),
        replace(one, scores=torch.tensor([0.9, 0.7])),
        replace(one, labels=torch.tensor([0, 2])),
    ):
        assert agreement([one], [other]).same == 0.5
    first = Detections(boxes[:1], one.scores[:1], one.labels[:1])
    assert agreement([one], [first]).same == pytest.approx(2 / 3)
    none = Detections(boxes[:0], one.scores[:0], one.labels[:0])
    assert agreement([none], [none]).same == 1 and agreement([none], [one]).same == 0
    moved = agreement([one], [replace(one, boxes=boxes + 0.05)])
    assert moved.same == 1 and moved.shift == pytest.approx(0.05, abs=1e-5)


@pytest.mark.long
@pytest.mark.parametrize(
    ("form", "end"), [("onnx", "onnx"), ("openvino", "xml"), *[("torch-export", "pt2")] * PROGRAMS]
)
@pytest.mark.parametrize("network", ["faster-rcnn-resnet8", "faster-rcnn-resnet18"])
def test_a_file_takes_fewer_and_more_anchors_than_proposals_are_chosen_among(net, files, tmp_path, network, form, end):
    """6,000 anchors are: at a stride of 2 small pictures have fewer, at one of 16 large ones have more."""
    from deepres.workflows.export import ExportOptions, deploy

    sizes, file = ((32, 48), (96, 160), (416, 480)), files[0][form]
    if network != net.name:
        net, file = small(network, **ONCE), tmp_path / f"net.{end}"
        deploy(net, file, ExportOptions(form), silent)
    run, _ = open_export(file)  # which is given pictures as they are, whatever the plan's longer side
    counts = [net.anchored(net.shared(picture[None].float()))[2].shape[0] for picture in pictures(*sizes)]
    assert min(counts) < TEST.before < max(counts)
    for picture in pictures(*sizes):
        outputs = run(picture.permute(1, 2, 0)[None].contiguous())
        found = Detections(outputs["boxes"], outputs["scores"], outputs["labels"])
        assert_near(found, net.detect_fitted(picture, picture.shape[1:], net.mean))


@pytest.mark.long
def test_the_command_line_exports_and_detects_with_the_file(net, deepres, tmp_path):
    written(net, tmp_path / "net.safetensors")
    (tmp_path / "pictures").mkdir()
    for number, picture in enumerate(PICTURES[:3]):
        save_image(picture / 255, tmp_path / "pictures" / f"{number}.png")
    made = deepres("export", "net.safetensors", "--out", "net.onnx", "--calibrate", "pictures")
    assert made.returncode == 0, made.stderr
    assert "on 3 real pictures" in made.stdout and "detections at any score are the same" in made.stdout
    rows = {}
    for weights in ("net.safetensors", "net.onnx"):
        result = deepres("detect", weights, "pictures", "--format", "jsonl", "--threshold", "0.3", "--most", "7")
        assert result.returncode == 0, result.stderr
        rows[weights] = [json.loads(line) for line in result.stdout.splitlines()]
    for one, other in zip(*rows.values(), strict=True):
        assert len(one["detections"]) == len(other["detections"]) > 0
        assert [found["class"] for found in one["detections"]] == [found["class"] for found in other["detections"]]
        for mine, theirs in zip(one["detections"], other["detections"], strict=True):
            assert mine["box"] == pytest.approx(theirs["box"], abs=0.01) and mine["score"] > 0.3


@pytest.mark.long
def test_what_the_file_of_a_detector_cannot_do_is_told(files, deepres, refused, tmp_path):
    save_image(PICTURES[0] / 255, tmp_path / "one.png")
    file = files[0]["onnx"]
    assert "is tested as it was exported" in refused("detect", file, "one.png", "--refine")
    assert "is tested as it was exported" in refused("detect", f"{file},{file}", "one.png")
    assert "with scores above 0.2" in deepres("detect", file, "one.png", "--threshold", "0.01").stderr
    assert "is a detector" in refused("predict", file, "one.png")


def test_what_is_not_supported_is_refused_in_one_sentence(net, refused, tmp_path):
    written(net, tmp_path / "net.safetensors")
    (tmp_path / "pictures").mkdir()
    save_image(PICTURES[0] / 255, tmp_path / "pictures" / "0.png")
    message = refused("export", "net.safetensors", "--out", "net.onnx", "--int8", "--calibrate", "pictures")
    assert "is a detector, which is written in fp32 alone; leave --int8 out" in message
    (tmp_path / "empty").mkdir()
    assert "empty holds no pictures" in refused(
        "export", "net.safetensors", "--out", "net.onnx", "--calibrate", "empty"
    )
    assert not (tmp_path / "net.onnx").exists()


@pytest.mark.long
@pytest.mark.parametrize(
    ("key", "text", "told"),
    [
        ("detector", '{"side": 1000000}', "side is 1000000"),
        ("detector", "[1]", "expected object, got array"),
        ("detector", '{"side": "600"}', "expected int, got str"),
        ("classes", '["one"]', "names 1 classes, and finds others"),
    ],
)
@pytest.mark.usefixtures("checked_types")
def test_the_metadata_of_strangers_is_refused(files, tmp_path, key, text, told):
    import onnx

    model = onnx.load(files[0]["onnx"])
    for own in model.metadata_props:
        if own.key == f"deepres.{key}":
            own.value = text
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(InputError, match=told):
        open_network(tmp_path / "net.onnx", silent).detect(PICTURES)


@pytest.mark.long
def test_a_process_that_ran_openvino_still_takes_signals(files):
    """OpenVINO leaves an alternate signal stack that it has freed: the next signal would be a segmentation fault."""
    code = (
        "import os, signal, torch\nfrom pathlib import Path\nfrom deepres.workflows.open_network import open_network\n"
        "signal.signal(signal.SIGTERM, lambda number, frame: print('caught'))\n"
        f"net = open_network(Path({str(files[0]['openvino'])!r}), print)\n"
        "net.detect([torch.zeros(3, 96, 160, dtype=torch.uint8)])\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    done = subprocess.run([sys.executable, "-X", "faulthandler", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("caught\n"), done.stderr


def test_an_engine_refuses_a_detector_in_a_sentence(net):
    with pytest.raises(InputError, match="is a detector, which no engine takes; write it with deepres export"):
        engine(net, torch.zeros(1, 3, 64, 64), "eager")
