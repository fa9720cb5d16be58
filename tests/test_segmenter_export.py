"""Detectors with masks exported whole: the same detections and masks in pictures of any size, in every form."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.utils import save_image

from cascades import small_cascade
from deepres.models.detection.images import fitted
from deepres.models.detection.outputs import Detections
from deepres.models.segmentation.voting import Voters, voted
from deepres.runtime.errors import InputError, silent
from deepres.runtime.masks import decoded, encoded
from deepres.serving.cascade_graph import VOTERS, CascadeGraph, voters_in
from deepres.serving.detector_graph import suppress_apart, suppress_by_group
from deepres.serving.detector_onnx import exported_detector
from deepres.serving.export_detector import WHOLE_PROGRAMS, agreement
from deepres.workflows.open_network import open_network
from small_detectors import pictures, written

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

CLASSES = ("ball", "cube", "rod")
PROGRAMS = torch.__version__ >= WHOLE_PROGRAMS  # whether a detector can be written as a program of PyTorch
PICTURES = pictures((48, 80), (60, 45), (24, 40), (150, 100), (33, 200))


def small(**plan):
    """With a threshold of 0, so that an export is checked once: detections of any score are those of the test."""
    own = {"proposals": 12, "threshold": 0.0, "most": 6, "smallest": 4.0, "region_size": 3} | plan
    net = small_cascade("resnet8", **own)
    net.header["classes"] = list(CLASSES)
    return net


@pytest.fixture(scope="module")
def net():
    return small()


@pytest.fixture(scope="module")
def files(net, tmp_path_factory):
    """The network in each form, through the command line's own functions, and what these tell."""
    from deepres.workflows.export import ExportOptions, deploy

    place = tmp_path_factory.mktemp("files")
    forms = (("onnx", "onnx"), ("openvino", "xml"), *[("torch-export", "pt2")] * PROGRAMS)
    made = {form: place / f"net.{end}" for form, end in forms}
    return made, {form: deploy(net, file, ExportOptions(form), silent) for form, file in made.items()}


def assert_same(found, expected):
    """The same scores, labels and masks, but for a pixel of a mask or a box."""
    assert len(expected) and found.labels.equal(expected.labels)
    assert found.scores.allclose(expected.scores, atol=1e-4)
    assert (found.boxes - expected.boxes).abs().amax() <= 1
    differing = (decoded(found.masks) != decoded(expected.masks)).sum((1, 2))
    assert differing.amax() <= 2


@pytest.mark.parametrize("plan", [{}, {"stages": 3, "region_size": 4}], ids=["five stages", "three stages"])
def test_the_graph_gives_the_detections_and_candidates_of_the_network(plan):
    net = small(**plan)
    graph = CascadeGraph(net, net.mean, suppress_apart)
    for picture in PICTURES:
        seen = fitted(picture, net.plan.side, net.plan.longest)
        outputs = graph(seen.permute(1, 2, 0)[None])
        expected, voters = net.elected(seen, seen.shape[1:], net.mean)
        assert tuple(outputs) == graph.outputs and len(expected)
        assert outputs["labels"].equal(expected.labels)
        assert outputs["boxes"].allclose(expected.boxes, atol=1e-3)
        for name, own in zip(VOTERS, voters, strict=True):
            assert outputs[name].allclose(own, atol=1e-3)
        # The mask of a detection is that of its candidate.
        places = (voters.boxes[None] == expected.boxes[:, None]).all(2).int().argmax(1)
        assert outputs["masks"].allclose(voters.masks[places], atol=1e-3)


@pytest.mark.long
@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_a_file_finds_the_masks_of_the_network_in_pictures_of_any_size(net, files, form):
    file = open_network(files[0][form], silent)
    assert file.name == net.name == "mnc-resnet8" and file.plan == net.plan
    for found, expected in zip(file.detect(PICTURES), net.detect(PICTURES), strict=True):
        assert_same(found, expected)


@pytest.mark.long
def test_the_check_at_export_sees_masks(files):
    for form, facts in files[1].items():
        assert facts["format"] == form and facts["same_detections"] >= 0.95 and facts["mask_overlap"] > 0.99


@pytest.mark.long
@pytest.mark.skipif(not PROGRAMS, reason="PyTorch before 2.14 makes programs for pictures of some sizes alone")
def test_a_program_of_pytorch_finds_the_masks_of_the_network(net, files):
    program = torch.export.load(files[0]["torch-export"]).module()
    for picture in PICTURES:
        seen = fitted(picture, net.plan.side, net.plan.longest)
        outputs = program(seen.permute(1, 2, 0)[None].contiguous())
        found = Detections(outputs["boxes"], outputs["scores"], outputs["labels"])
        size = seen.shape[1:]
        masked = voted(found, *voters_in(outputs, 3), net.plan.voting, net.plan.binarised, size)
        assert_same(masked, net.detect_fitted(seen, size, net.mean))


@pytest.mark.long
def test_a_file_tells_other_programs_what_it_gives(net, files):
    session = onnxruntime.InferenceSession(files[0]["onnx"])
    told = session.get_modelmeta().custom_metadata_map
    assert "masks float32 (k, S, S)" in told["deepres.output"]
    assert json.loads(told["deepres.detector"])["mask_size"] == 7
    assert session.get_inputs()[0].shape == [1, "height", "width", 3]
    shapes = {value.name: value.shape for value in session.get_outputs()}
    assert list(shapes) == ["boxes", "scores", "labels", "masks", *VOTERS]
    assert shapes["masks"] == ["detections", 7, 7] and shapes["candidate_masks"] == ["candidates", 7, 7]
    assert shapes["candidate_scores"] == ["candidates", 4]


@pytest.mark.long
def test_a_file_may_find_nothing(tmp_path):
    """No detections among the candidates; and no candidates, where there are no proposals."""
    from deepres.workflows.export import ExportOptions, deploy

    net = small(stages=3, threshold=1.0)
    session = onnxruntime.InferenceSession(exported_detector(CascadeGraph(net, net.mean, suppress_by_group)))
    found = session.run(None, {"images": np.zeros((1, 48, 64, 3), np.uint8)})
    outputs = dict(zip(CascadeGraph.outputs, found, strict=True))
    assert outputs["boxes"].shape == (0, 4) and outputs["masks"].shape == (0, 7, 7)
    assert outputs["candidate_masks"].shape == (12, 7, 7)
    deploy(small(stages=3, smallest=8192.0), tmp_path / "net.xml", ExportOptions("openvino"), silent)
    for found in open_network(tmp_path / "net.xml", silent).detect(PICTURES[:2]):
        assert found.boxes.shape == (0, 4) and len(found.masks) == 0


@pytest.mark.long
def test_detect_takes_the_masks_of_a_file(deepres, net, files, tmp_path):
    """The same as those of the weights, but for a pixel; drawn, too."""
    (tmp_path / "seen").mkdir()
    save_image(PICTURES[3].float() / 255, tmp_path / "seen" / "1.png")
    weights = written(net, tmp_path / "net.safetensors")
    for place, drawn in ((weights, "first"), (files[0]["onnx"], "second")):
        result = deepres("detect", place, tmp_path / "seen", "--format", "coco", "--draw", drawn)
        assert result.returncode == 0, result.stderr
        assert all(one["segmentation"]["size"] == [150, 100] for one in json.loads(result.stdout))
    first, second = (np.asarray(Image.open(tmp_path / name / "1.png")).astype(int) for name in ("first", "second"))
    plain = np.asarray(Image.open(tmp_path / "seen" / "1.png")).astype(int)
    assert (first != plain).any(2).mean() > 0.2 and (first != second).any(2).mean() < 0.02
    few = deepres("detect", files[0]["onnx"], tmp_path / "seen", "--format", "coco", "--most", 1)
    assert len(json.loads(few.stdout)) == 1


def test_candidates_of_a_file_that_are_none_are_refused():
    fine = dict(zip(VOTERS, Voters(torch.zeros(5, 4), torch.zeros(5, 4), torch.zeros(5, 7, 7)), strict=True))
    assert len(voters_in(fine, 3).boxes) == 5
    for name, wrong in (
        ("candidates", torch.zeros(4, 4)),
        ("candidate_scores", torch.zeros(5, 3)),
        ("candidate_masks", torch.zeros(5, 7, 6)),
        ("candidates", torch.full((5, 4), torch.nan)),
    ):
        with pytest.raises(ValueError, match="candidates"):
            voters_in(fine | {name: wrong}, 3)


def test_agreement_tells_other_masks_apart():
    maps = torch.zeros(2, 20, 20, dtype=torch.bool)
    maps[0, :10], maps[1, :10, :10] = True, True
    box, score, label = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([0.9]), torch.tensor([0])
    one, other = (Detections(box, score, label, encoded(maps[place : place + 1])) for place in range(2))
    assert agreement([one], [one]).overlap == 1
    assert agreement([one], [other]).overlap == pytest.approx(0.5)
    assert agreement([Detections(box, score, label)], [Detections(box, score, label)]).overlap is None


@pytest.mark.long
def test_a_file_without_candidates_is_refused_in_a_sentence(net, files, tmp_path):
    """As one whose metadata were taken from a detector with masks."""
    file = open_network(files[0]["onnx"], silent)
    run = file.run
    file.run = lambda images: {name: value for name, value in run(images).items() if name not in VOTERS}
    with pytest.raises(InputError, match="gives no detections"):
        file.detect(PICTURES[:1])
