"""Class names of weights and of data: by name, by place where there are none, else refused."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from deepres import InputError, build
from deepres.classification import score_table
from deepres.data.classes import Classes, classes_of, match
from deepres.weights.file import serialise
from deepres.weights.start import Start
from networks import warmed

COLOURS = {"cat": (200, 0, 0), "dog": (0, 200, 0), "fish": (0, 0, 200)}
IMAGENET = [f"n{number:08}" for number in range(1000)]


def folder(root, colours, parts=("train", "test")):
    """Pictures of one colour; the colour is that of a class of `COLOURS`."""
    for part in parts:
        for name, colour in colours.items():
            (root / part / name).mkdir(parents=True, exist_ok=True)
            for number in range(2):
                Image.new("RGB", (8, 8), colour).save(root / part / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A function that writes a network which tells the colours apart, whose classes are called as is wanted."""
    place = tmp_path_factory.mktemp("weights")
    net = warmed("resnet8", 8)
    images = torch.stack([torch.tensor(colour) for colour in COLOURS.values()])[:, :, None, None].expand(-1, -1, 8, 8)
    seen = []
    handle = net.fc.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        net(images / 255 - 0.5)
        handle.remove()
        features = seen[0].double()
        fit = torch.linalg.lstsq(
            torch.cat([features, torch.ones(3, 1)], 1), torch.eye(3).double() * 10
        ).solution.float()
        net.fc.weight.copy_(fit[:-1].T)
        net.fc.bias.copy_(fit[-1])

    def write(classes, order=(0, 1, 2)):
        header = {"network": "resnet8"} | ({} if classes is None else {"classes": [classes[own] for own in order]})
        state = dict(net.state_dict())
        state |= {key: state[key][list(order)] for key in ("fc.weight", "fc.bias")}
        file = place / f"{len(list(place.iterdir()))}.safetensors"
        file.write_bytes(serialise(state, torch.full((3, 1, 1), 0.5), header))
        return file

    return write


def report(deepres, *arguments):
    result = deepres("eval", *arguments, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout), result.stderr


def test_names_that_agree_are_matched_by_name_in_any_order(deepres, weights, tmp_path):
    data = folder(tmp_path / "set", COLOURS)
    for order in ((0, 1, 2), (2, 0, 1), (1, 0, 2)):
        found, said = report(deepres, weights(["cat", "dog", "fish"], order), "--data", data)
        assert found["top1_error"] == 0 and found["classes"] == ["cat", "dog", "fish"] and "by their place" not in said


def test_names_of_another_unicode_form_are_the_same(deepres, weights, tmp_path):
    data = folder(tmp_path / "set", {"a\u0308ffchen": COLOURS["cat"], "dog": COLOURS["dog"], "fish": COLOURS["fish"]})
    assert report(deepres, weights(["äffchen", "dog", "fish"], (1, 0, 2)), "--data", data)[0]["top1_error"] == 0


def test_sets_that_agree_in_part_are_refused_with_both_lists(deepres, refused, weights, tmp_path):
    data = folder(tmp_path / "set", {"cat": COLOURS["cat"], "dog": COLOURS["dog"], "horse": COLOURS["fish"]})
    net = weights(["cat", "dog", "fish"])
    message = refused("eval", net, "--data", data)
    assert (
        "knows the classes cat, dog, fish, and" in message and "has cat, dog, horse: the first lacks horse" in message
    )
    assert "--by-place" in message
    found, said = report(deepres, net, "--data", data, "--by-place")
    assert found["top1_error"] == 0 and found["classes"] == ["cat", "dog", "horse"] and "taken by their place" in said


def test_other_names_of_all_classes_are_refused_too_and_by_place_goes_before_names(deepres, refused, weights, tmp_path):
    assert "the first lacks cat, dog, fish" in refused(
        "eval", weights(["ant", "bee", "cow"]), "--data", folder(tmp_path / "set", COLOURS)
    )
    moved = weights(["cat", "dog", "fish"], (2, 0, 1))
    assert report(deepres, moved, "--data", tmp_path / "set", "--by-place")[0]["top1_error"] == 100


def test_a_test_set_with_a_part_of_the_classes_is_tested_over_all(deepres, refused, weights, tmp_path):
    data = folder(tmp_path / "set", {name: COLOURS[name] for name in ("cat", "fish")})
    net = weights(["cat", "dog", "fish"], (1, 2, 0))
    found, said = report(deepres, net, "--data", data, "--save-scores", "kept.safetensors")
    assert found["top1_error"] == 0 and found["images"] == 4 and "has 2 of the 3 classes" in said
    assert found["classes"] == ["dog", "fish", "cat"] and found["class_errors"] == [None, 0, 0]
    kept = score_table.read_scores(tmp_path / "kept.safetensors")
    assert kept.members[0].scores.shape == (4, 3) and kept.labels.tolist() == [2, 2, 1, 1]
    both, _ = report(deepres, weights(["cat", "dog", "fish"]), net, "kept.safetensors", "--data", data)
    assert [own["top1_error"] for own in both["members"]] == [0, 0, 0]
    assert "knows the classes" in refused(
        "eval", net, "--data", folder(tmp_path / "more", COLOURS | {"gnu": (9, 9, 9)})
    )
    message = refused("eval", net, "--data", data, "--by-place")
    assert "knows 3 classes" in message and "has 2; give what was made for the same" in message


def test_members_of_an_ensemble_are_matched_by_name_or_refused(deepres, refused, weights, tmp_path):
    data = folder(tmp_path / "set", COLOURS)
    one, other, third = (
        weights(["cat", "dog", "fish"], (1, 2, 0)), weights(["cat", "dog", "fish"]), weights(["cat", "dog", "gnu"])
    )  # fmt: skip
    found, _ = report(deepres, one, other, "--data", data, "--save-scores", "both.safetensors")
    assert [member["top1_error"] for member in found["members"]] == [0, 0]
    assert "lacks fish" in refused("eval", one, third, "--data", data)
    assert report(deepres, other, third, "--data", data, "--by-place")[0]["top1_error"] == 0
    report(deepres, third, "--data", data, "--by-place", "--save-scores", "third.safetensors")
    renamed = score_table.read_scores(tmp_path / "third.safetensors")
    score_table.write_scores(
        tmp_path / "third.safetensors", score_table.replace(renamed, classes=("cat", "dog", "gnu"))
    )
    message = refused("eval", "both.safetensors", "third.safetensors")
    assert "third.safetensors" not in message and "cat, dog, gnu" in message and "cat, dog, fish" in message
    found, said = report(deepres, "both.safetensors", "third.safetensors", "--by-place")
    assert [member["top1_error"] for member in found["members"]] == [0, 0, 0] and "as --by-place has it" in said


@pytest.mark.long
def test_an_exported_file_is_matched_by_name_too(deepres, refused, weights, tmp_path):
    data = folder(tmp_path / "set", COLOURS)
    file = weights(["cat", "dog", "fish"], (2, 0, 1))
    assert deepres("export", file, "--out", "net.onnx", "--preprocess").returncode == 0
    found, _ = report(deepres, "net.onnx", "--data", data, "--image-size", 32, "--protocol", "single")
    assert found["top1_error"] == 0 and found["classes"] == ["cat", "dog", "fish"]
    other = folder(tmp_path / "other", {"cat": COLOURS["cat"], "gnu": COLOURS["dog"], "fish": COLOURS["fish"]})
    assert "net.onnx knows the classes fish, cat, dog" in refused("eval", "net.onnx", "--data", other)


def test_weights_without_names_or_with_numbers_are_taken_by_place_which_is_said(deepres, refused, weights, tmp_path):
    data = folder(tmp_path / "set", COLOURS)
    for names in (None, ["0", "1", "2"]):
        found, said = report(deepres, weights(names), "--data", data)
        assert found["top1_error"] == 0 and found["classes"] == ["cat", "dog", "fish"]
        assert "taken by their place, since" in said and "does not name them" in said
    two = folder(tmp_path / "two", {name: COLOURS[name] for name in ("cat", "dog")})
    assert "knows 3 classes" in refused("eval", weights(None), "--data", two)


def test_data_without_names_are_taken_by_place_which_is_said():
    said = list[str]()
    member = Classes("net", ("cat", "dog", "fish"))
    found = match(None, "set", [member], False, said.append)
    assert (found.classes, found.labels, found.columns) == (("cat", "dog", "fish"), [0, 1, 2], [[0, 1, 2]])
    assert said == ["the classes of net and set are taken by their place, since set does not name them"]


def test_folders_called_by_numbers_are_taken_by_number_and_not_in_the_order_of_text():
    """As ImageNet-V2 has them: 0, 1, 10, 100, ..."""
    numbers = tuple(sorted(map(str, range(12))))
    names = tuple("abcdefghijkl")
    assert match(numbers, "set", [classes_of("net", None, 12)], False, print).labels == [int(one) for one in numbers]
    found = match(numbers, "set", [Classes("net", names)], False, print)
    assert found.classes == names and found.labels == [int(one) for one in numbers]
    assert match(names, "set", [Classes("net", numbers)], False, print).columns[0][2] == numbers.index("2")
    assert match(None, "set", [Classes("net", numbers)], False, print).labels == [
        numbers.index(str(n)) for n in range(12)
    ]
    assert match(("2", "7"), "set", [classes_of("net", None, 12)], False, print).labels == [2, 7]


def test_numbers_that_are_not_those_from_0_are_names(deepres, refused, weights, tmp_path):
    """A network of the folders 0 to 9, tested on 1 to 10, has 9 of them; with zeros in front numbers are the same."""
    numbers = [str(number) for number in range(11)]
    for names in (None, numbers[:10]):
        with pytest.raises(InputError, match="the first lacks 10; give what was made for the same classes, or --by-pl"):
            match(sorted(numbers[1:]), "set", [classes_of("net", names, 10)], False, print)
    with pytest.raises(InputError, match="the first lacks 0;"):
        match(numbers[:10], "set", [Classes("net", tuple(sorted(numbers[1:])))], False, print)
    assert match(numbers[1:10], "set", [classes_of("net", None, 10)], False, print).labels == list(range(1, 10))
    padded = [f"{number:02}" for number in range(12)]
    assert match(padded, "set", [classes_of("net", None, 12)], False, print).labels == list(range(12))
    plain = sorted(str(number) for number in range(12))
    assert match(plain, "set", [Classes("net", tuple(padded))], False, print).labels == [int(name) for name in plain]
    found = match(padded, "set", [Classes("net", tuple(plain))], False, print)
    assert [found.classes[label] for label in found.labels] == [str(int(name)) for name in padded]
    data = folder(tmp_path / "set", dict(zip("123", COLOURS.values(), strict=True)))
    assert "has 1, 2, 3: the first lacks 3" in refused("eval", weights(["0", "1", "2"]), "--data", data)
    assert report(deepres, weights(["1", "2", "3"]), "--data", data)[0]["top1_error"] == 0


def test_finetuning_on_other_numbers_trains_a_new_head():
    after, before, said = head(["0", "1", "2"], ["1", "2", "3"])
    assert not np.isin(after.numpy(), before.numpy()).any() and "2 are in both): a new head is trained" in said


def test_imagenet_is_one_in_english_and_by_the_numbers_of_its_folders():
    english = ("tench", *(f"class {number}" for number in range(998)), "toilet tissue")
    said = list[str]()
    found = match(IMAGENET, "imagenet", [Classes("net", english)], False, said.append)
    assert found.labels == list(range(1000)) and "both have ImageNet's" in said[0]
    with pytest.raises(InputError, match=r"n00000009, \.\.\. \(1,000 in all\)"):
        match(IMAGENET, "imagenet", [Classes("net", tuple(f"x{name}" for name in english))], False, print)


def test_a_name_that_is_there_twice_is_matched_where_nothing_moves_alone():
    crane = ("crane", "crane", "ant")
    assert match(crane, "set", [Classes("net", crane)], False, print).columns == [[0, 1, 2]]
    assert match(("ant",), "set", [Classes("net", crane)], False, print).labels == [2]
    with pytest.raises(InputError, match="not the same"):
        match(("ant", "crane", "crane"), "set", [Classes("net", crane)], False, print)


def head(classes, wanted):
    """The head of a network that knows `classes` once it has begun on `wanted`, and before; and what was said."""
    torch.manual_seed(0)
    net, said = build("resnet8", len(classes or wanted)), list[str]()
    net.header |= {} if classes is None else {"classes": classes}
    begun = Start(net, b"").begin(wanted, 3, said.append)
    return begun.fc.weight.detach(), net.fc.weight.detach(), "".join(said)


def test_finetuning_keeps_the_head_of_the_same_names_in_any_order_and_says_where_it_does_not():
    after, before, said = head(["cat", "dog", "fish"], ["dog", "fish", "cat"])
    assert after.equal(before[[1, 2, 0]]) and not said
    after, before, said = head(["cat", "dog", "fish"], ["cat", "dog", "horse"])
    assert not np.isin(after.numpy(), before.numpy()).any() and "2 are in both): a new head is trained" in said
    for names in (None, ["0", "1", "2"]):
        after, before, said = head(names, ["cat", "dog", "horse"])
        assert after.equal(before) and "taken by their place" in said
