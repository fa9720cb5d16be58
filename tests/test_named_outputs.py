"""Networks with several outputs, by name, in every form of a file and every engine."""

import pytest
import torch
from torch import nn

from deepres.runtime.errors import InputError
from deepres.serving import export as serving
from deepres.serving.agreement import agreement
from deepres.serving.engine import engine
from deepres.serving.export import Inputs, export, open_export

pytestmark = pytest.mark.long
FACTS = {"network": "boxed", "crop": 16, "classes": ["a", "b", "c"], "precision": "fp32", "protocol": "single"}


class Boxed(nn.Module):
    """Scores of three classes, a box, and the number of the best class; not in the order of the alphabet."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.classify, self.locate = nn.Linear(32, 3), nn.Linear(32, 4)

    def forward(self, images):
        features = self.body(images)
        scores = self.classify(features)
        return {"scores": scores, "boxes": self.locate(features).sigmoid(), "labels": scores.argmax(1)}


@pytest.fixture
def net():
    return Boxed().eval()


def pictures(count):
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("name", ["net.onnx", "net.pt2", "net.xml"])
@pytest.mark.parametrize("preprocess", [False, True])
def test_a_file_keeps_the_outputs_of_its_network_by_name(net, tmp_path, name, preprocess):
    for package in ("onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    mean = torch.full((3, 16, 16), 0.4) if preprocess else None
    taken = [pictures(count) for count in (1, 5)]
    if preprocess:
        taken = [(images * 255).byte().permute(0, 2, 3, 1).contiguous() for images in taken]
    form = serving.form_of(tmp_path / name, None)
    facts = FACTS | {"input": "uint8" if preprocess else "float32"}
    found = export(net, tmp_path / name, form, Inputs(taken, mean), facts)
    assert found.images == 6 and found.same == 1 and 0 <= found.change <= 1e-5
    run, read = open_export(tmp_path / name)
    assert read["network"] == "boxed"
    outputs = run(taken[1])
    assert list(outputs) == ["scores", "boxes", "labels"]
    with torch.no_grad():
        expected = net(taken[1].permute(0, 3, 1, 2).float() / 255 - mean if preprocess else taken[1])
    for output, values in expected.items():
        torch.testing.assert_close(outputs[output].to(values.dtype), values)


def test_the_right_values_under_exchanged_names_do_not_agree(net):
    net.locate = nn.Linear(32, 3)

    def exchanged(images):
        outputs = net(images)
        return outputs | {"scores": outputs["boxes"], "boxes": outputs["scores"]}

    assert agreement(exchanged, net, [pictures(4)]).change > serving.LARGEST_CHANGE


def test_agreement_is_that_of_the_output_that_changed_most(net):
    def changed(images):
        outputs = net(images)
        return outputs | {"boxes": outputs["boxes"] + 0.5 * outputs["boxes"].max()}

    images = pictures(4)
    assert agreement(changed, net, [images]).change == pytest.approx(0.5)
    assert agreement(net, net, images.split(2)).change == 0
    assert agreement(lambda images: net(images) | {"boxes": torch.zeros(4, 5)}, net, [images]).change == float("inf")
    with pytest.raises(InputError, match="gives scores, boxes, labels, and the other form of it scores"):
        agreement(lambda images: {"scores": net(images)["scores"]}, net, [images])


class OnlyBoxes(Boxed):
    def forward(self, images):
        return {"boxes": super().forward(images)["boxes"]}


def test_without_scores_nothing_is_said_of_the_best_class_and_int8_is_refused(tmp_path):
    pytest.importorskip("onnxruntime")
    images, net = pictures(4), OnlyBoxes().eval()
    assert agreement(net, net, [images]).same is None
    with pytest.raises(InputError, match="has no scores; leave --int8 out"):
        export(net, tmp_path / "net.onnx", "onnx", Inputs([images], calibrate=[images]), FACTS)


@pytest.mark.parametrize("name", ["eager", "onnxruntime", "openvino"])
def test_an_engine_gives_the_outputs_of_its_network_by_name(net, name):
    if name != "eager":
        pytest.importorskip("onnxscript")
        pytest.importorskip(name)
    made = engine(net, pictures(2), name)
    for count in (2, 3):
        images = pictures(count)
        with torch.no_grad():
            expected = net(images)
        outputs = made(images)
        assert list(outputs) == list(expected)
        for output, values in expected.items():
            torch.testing.assert_close(outputs[output].to(values.dtype), values)
        assert made.scores(images).equal(outputs["scores"])
