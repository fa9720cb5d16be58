"""What the name of a folder or a file says: which part of a data set it is, and whether it is a picture."""

import re
from pathlib import Path
from typing import Literal, NamedTuple

Split = Literal["train", "test", "val"]

TRAIN = ("train", "training", "trn", "trainval")
# Of several test parts, the one whose word comes first here is taken.
TEST = ("test", "testing", "tst", "holdout")
VALIDATION = ("eval", "evaluation", "evaluate", "val", "valid", "validation", "validate", "dev", "development")
RANKS = {word: rank for rank, word in enumerate((*TRAIN, *TEST, *VALIDATION))}
# Words beside the word for a part that mean nothing: "Training Set", seg_train, train_images, val2017.
FILLING = {
    *("set", "sets", "data", "dataset", "datasets", "split", "part", "folder", "files", "sample", "samples"),
    *("image", "images", "img", "imgs", "picture", "pictures", "pic", "pics", "photo", "photos", "jpg", "jpeg"),
    *("png", "seg", "crop", "crops", "cropped", "resized", "raw", "original", "final", "full", "new", "the", "my"),
    *("labeled", "labelled", "class", "classes", "classification", "clean", "processed", "augmented", "aug"),
}
# Those of torchvision, and others that Pillow decodes.
IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".jfif", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif"),
    *(".jpe", ".avif", ".heic", ".heif", ".hif"),
}
HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
HOLD_OUT = re.compile(r"hold[\W_]*out")
TOKEN = re.compile(r"[^\W\d_]+|\d+")


class PartName(NamedTuple):
    """A name with one word for a part: its split, its place in the order of preference, and the other words."""

    split: Split
    rank: int
    rest: tuple[str, ...]

    @property
    def is_plain(self) -> bool:
        """Whether the other words mean nothing, so that the name alone shows that it is a part."""
        return all(word in FILLING or word.isdecimal() for word in self.rest)


def part_name(name: str) -> PartName | None:
    """The part in a name like `train`, "Test Set", `seg_val` or `images-hold-out`; None without or with two words."""
    words = TOKEN.findall(HOLD_OUT.sub("holdout", HUMP.sub(" ", name).casefold()))
    known = [(place, word) for place, word in enumerate(map(_part_word, words)) if word is not None]
    if len(known) != 1:
        return None
    ((place, word),) = known
    return PartName(_split(word), RANKS[word], (*words[:place], *words[place + 1 :]))


def split_of(path: Path) -> Split | None:
    """The split in the name of a file (the first word counts), or else in that of its folder; None for neither."""
    words = map(_part_word, TOKEN.findall(HUMP.sub(" ", path.name).casefold()))
    first = next((word for word in words if word is not None), None)
    if first is not None:
        return _split(first)
    folder = part_name(path.parent.name)
    return folder.split if folder is not None and folder.is_plain else None


def is_filling(name: str) -> bool:
    """Whether a folder's name has no meaning of its own (`images`, "My Photos 2")."""
    words = TOKEN.findall(HUMP.sub(" ", name).casefold())
    return bool(words) and all(word in FILLING or word.isdecimal() for word in words)


def is_picture(name: str) -> bool:
    """Whether a file is a picture, by the suffix of its name."""
    return f".{name.rpartition('.')[2].lower()}" in IMAGE_SUFFIXES


def _part_word(word: str) -> str | None:
    """The word for a part in `word`, which may have a filling word joined to it (`trainset`, `imagestest`)."""
    if word in RANKS:
        return word
    for known in sorted(RANKS, key=len, reverse=True):
        if word.startswith(known) and word.removeprefix(known) in FILLING:
            return known
        if word.endswith(known) and word.removesuffix(known) in FILLING:
            return known
    return None


def _split(word: str) -> Split:
    return "train" if word in TRAIN else "test" if word in TEST else "val"
