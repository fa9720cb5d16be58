"""Measure how equal other people's networks are here: python tools/collect_equality.py; needs torchvision and timm.

Each network of torchvision and of timm that we have too gets random weights and statistics, is saved, loaded by
`deepres.load` and run on the same pictures. It fails where the scores of two pictures are all but the same, since then
their equality would show nothing. Writes docs/results/equality.json; `python tools/check_docs.py --write` then renews
the table.
"""

import warnings
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import timm
import torch
import torchvision
from torch import Tensor, nn

import deepres
from deepres.models.registry import HALF, IMAGENET_MEAN, IMAGENET_STD
from deepres.records import write_json
from deepres.weights.convert import Target, convert

RESULT = Path(__file__).parents[1] / "docs" / "results" / "equality.json"
IMAGENET, GOOGLENET = (IMAGENET_MEAN, IMAGENET_STD), (HALF, HALF)
RESNETS = tuple(f"resnet{depth}" for depth in (18, 34, 50, 101, 152))
VGGS = ("vgg16", "vgg16_bn", "vgg19", "vgg19_bn")
SHARED = {"torchvision": (*RESNETS, *VGGS, "alexnet", "googlenet"), "timm": (*RESNETS, *VGGS)}
IMAGES = 4
SPREAD = 1e-3  # the scores of any two pictures differ by more than this part of the largest


def made(library: str, name: str) -> nn.Module:
    """Their network with noise in every weight that neither grows nor dies out on the way (He et al. 2015).

    Statistics of batch normalization are as after a training.
    """
    torch.manual_seed(0)
    if library == "timm":
        net = timm.create_model(name)
    else:
        extra = {"init_weights": False} if name == "googlenet" else {}
        net = torchvision.models.get_model(name, weights=None, **extra)
    for parameter in net.parameters():
        if parameter.dim() > 1:
            nn.init.kaiming_normal_(parameter)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1)
            nn.init.normal_(module.bias, 0, 0.1)
    return net.eval()


def normalized(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    return (images - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


@torch.no_grad()
def compare(library: str, name: str, folder: Path) -> dict[str, object]:
    net = made(library, name)
    theirs, ours = folder / "theirs.pth", folder / "ours.safetensors"
    torch.save(net.state_dict(), theirs)
    images = torch.rand(IMAGES, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    images *= torch.linspace(0.25, 1, IMAGES)[:, None, None, None]  # dark to bright: the means of noise are all alike
    expected = net(normalized(images, *(GOOGLENET if name == "googlenet" else IMAGENET)))
    spread = float(torch.pdist(expected, p=torch.inf).min() / expected.abs().max())
    if spread <= SPREAD:
        raise SystemExit(f"{library}'s {name}: the scores of two pictures differ by {spread:.1e} of the largest alone")
    loaded = deepres.load(theirs)
    found = loaded(images - loaded.mean)
    row = {
        "network": loaded.name,
        "library": library,
        "difference": float((found - expected).abs().max() / expected.abs().max()),
        "top1": bool((found.argmax(1) == expected.argmax(1)).all()),
        "spread": spread,
    }
    if library == "torchvision":
        convert(theirs, Target(ours), print)
        convert(ours, Target(folder / "back.pth"), print)
        back = torch.load(folder / "back.pth", weights_only=True)
        state = net.state_dict()
        row["exact"] = back.keys() == state.keys() and all(torch.equal(back[key], state[key]) for key in state)
    print(row)
    return row


def main() -> None:
    warnings.simplefilter("ignore", FutureWarning)
    with TemporaryDirectory() as folder:
        rows = [compare(library, name, Path(folder)) for library, names in SHARED.items() for name in names]
    versions = {library: version(library) for library in ("torch", *SHARED)}
    write_json(RESULT, {"images": IMAGES, "versions": versions, "rows": rows})


main()
