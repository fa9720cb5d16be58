"""One centre crop in all of deepres: torchvision's, bit by bit."""

import io

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from deepres.classification.scorer import Execution
from deepres.classification.views import Protocol, center
from deepres.data import resizing
from deepres.data.crops import center_crop
from deepres.data.sources import load_data_set
from deepres.weights.find import ready
from deepres.workflows.predict import predictor

# Odd and even margins on both sides, longer sides that do not divide, larger and smaller than the crop.
SIZES = ((500, 375), (375, 500), (333, 257), (256, 256), (257, 301), (61, 47), (1023, 767), (767, 770), (300, 64))


def photograph(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Noise, of which every pixel tells where it was taken from."""
    width, height = size
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def torchvisions(image: Image.Image, side: int, crop: int) -> Tensor:
    return tensor(v2.Compose([v2.Resize(side), v2.CenterCrop(crop)])(image))


@pytest.mark.parametrize("size", SIZES)
def test_every_centre_crop_is_torchvisions_to_the_last_bit(size):
    image = photograph(size)
    for crop in (224, 225, 112, 32):
        side = round(256 * crop / 224)
        wanted = torchvisions(image, side, crop)
        assert center_crop(encoded(image), crop=crop, side=side).equal(wanted)  # statistics, tests while training
        assert Protocol("center").views(crop)(tensor(image))[0].equal(wanted)  # eval, predict, export, demo
        assert Protocol("10-crop").views(crop)(tensor(image))[4].equal(wanted)


@pytest.mark.parametrize("size", SIZES)
def test_views_of_the_other_tests_are_torchvisions_too(size):
    image = photograph(size)
    corners = v2.FiveCrop(64)(v2.Resize(73)(image))
    wanted = [tensor(view) for view in (*corners, *(v2.functional.hflip(view) for view in corners))]
    assert all(map(torch.equal, Protocol("10-crop").views(64)(tensor(image)), wanted))
    dense = [tensor(v2.Resize(side)(image)) for side in (64, 96, 131)]
    assert all(map(torch.equal, Protocol("dense", (64, 96, 131), False).views(64)(tensor(image)), dense))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_whole_images_of_one_size_are_torchvisions_too(tmp_path, kind):
    """`--image-size`, also of a gray folder, and of pictures smaller than that."""
    wanted = list[Tensor]()
    for part in ("train", "test"):
        (tmp_path / "set" / part / "a").mkdir(parents=True)
        for number, size in enumerate(SIZES):
            content = encoded(photograph(size, number), kind)
            (tmp_path / "set" / part / "a" / f"{number}.{kind.lower()}").write_bytes(content)
            wanted.append(torchvisions(Image.open(io.BytesIO(content)), 65, 65))
    data = load_data_set(str(tmp_path / "set"), image_size=65)
    assert data.train.images.equal(torch.stack(wanted[: len(SIZES)])) and data.test.images.equal(data.train.images)


def test_a_picture_smaller_than_the_crop_gets_black_around_it():
    for size in ((5, 8), (8, 5), (3, 3), (6, 9)):
        image = photograph(size)
        wanted = tensor(v2.CenterCrop(6)(image))
        assert tensor(resizing.centered(image, 6)).equal(wanted) and center(tensor(image), 6).equal(wanted)


def test_gray_images_are_resized_as_pillow_does_it():
    gray = photograph((61, 47)).convert("L")
    wanted = torch.from_numpy(np.array(v2.CenterCrop(32)(v2.Resize(37)(gray))))[None]
    assert Protocol("center").views(32)(torch.from_numpy(np.array(gray))[None])[0].equal(wanted)


def test_the_centre_of_a_very_long_picture_is_taken_without_filling_memory():
    long = Image.new("RGB", (40_000, 2), (10, 20, 30))
    assert center_crop(encoded(long)).unique().tolist() == [10, 20, 30]


def test_torchvisions_weights_have_torchvisions_scores(tmp_path):
    """The file, the picture and the preset of a published figure: the scores differ by rounding alone."""
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(num_classes=7).eval()
    theirs.fc.weight.data *= 8  # scores that tell a pixel
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    kinds = torchvision.models.ResNet18_Weights.IMAGENET1K_V1, torchvision.models.ResNet50_Weights.IMAGENET1K_V2
    for kind, protocol in zip(kinds, (None, Protocol("center", (232,))), strict=True):
        ours = predictor(ready(tmp_path / "resnet18.pth", print), protocol, Execution(device="cpu", precision="fp32"))
        for number, size in enumerate(((333, 257), (500, 375))):
            file = tmp_path / f"{number}.jpg"
            file.write_bytes(encoded(photograph(size, number), "JPEG"))
            with torch.inference_mode():
                wanted = theirs(kind.transforms()(Image.open(file))[None]).double().softmax(1)[0]
            (found,) = ours.predict([file], 7)
            scores = dict(found.top)
            assert [scores[str(label)] for label in range(7)] == pytest.approx(wanted.tolist(), abs=1e-5)
