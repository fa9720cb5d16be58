"""Pictures with objects of one class, as those of ILSVRC's localization: any data with boxes, without the others."""

import hashlib
from dataclasses import replace

import torch
from torch import Tensor

from deepres.data.boxes.index import FIELDS, BoxIndex
from deepres.data.boxes.truth import Truth
from deepres.data.manifest import Strings
from deepres.runtime.errors import Say, few


def of_one_class(index: BoxIndex, what: str, say: Say) -> BoxIndex:
    """The pictures of `index` whose objects are all of one class, the label of each in `pictures.labels`.

    Crowds, which are areas, do not count as objects, and are left out. `say` is told how many of the pictures, `what`
    in its words, have objects of several classes or none, and so are left out.
    """
    objects = index.objects
    counts = index.ends.diff(prepend=index.ends.new_zeros(1))
    owners = torch.arange(len(index)).repeat_interleave(counts)
    counted = ~objects.crowd
    # The smallest and the largest label of each picture.
    own, labels = owners[counted], objects.labels[counted]
    number = own.bincount(minlength=len(index))
    most, least = (
        torch.zeros(len(index), dtype=torch.int64).scatter_reduce(0, own, labels, how, include_self=False)
        for how in ("amax", "amin")
    )
    kept = (number > 0) & (most == least)
    for wrong, why in (((number > 0) & ~kept, "objects of several classes"), (number == 0, "no object")):
        if wrong.any():
            names = few(index.names[place] for place in wrong.nonzero().flatten().tolist())
            say(f"{what} pictures with {why}, left out: {int(wrong.sum()):,} of {len(index):,} ({names})")
    return _subset(index, kept, counted & kept[owners], number[kept], most[kept])


def _subset(index: BoxIndex, kept: Tensor, objects: Tensor, counts: Tensor, labels: Tensor) -> BoxIndex:
    """The pictures of the mask `kept` with the `objects` of another one; `counts` and `labels` are of each picture."""
    pictures, places = index.pictures, kept.nonzero().flatten()
    digest = hashlib.sha256(f"{index.fingerprint} of one class".encode())
    digest.update(places.numpy().tobytes())
    own = replace(
        pictures,
        fingerprint=digest.hexdigest(),
        names=Strings.of(pictures.names[place] for place in places.tolist()),
        labels=labels,
        **{name: getattr(pictures, name)[places] for name in ("digests", "file", "offset", "size")},
    )
    truth = Truth(*(getattr(index.objects, name)[objects] for name in FIELDS))
    sizes, ids = index.sizes[places], index.image_ids[places]
    return BoxIndex(own, sizes, truth, counts.cumsum(0), ids, index.category_ids)
