"""The command line: what it prints, and one sentence with exit code 2 for bad input."""

import json
import pickle
import sys

import pytest
import torch

import images
from runs import last_weights, run_deepres

VERBS = ("info", "data", "train", "eval", "reproduce", "report", "bench", "convert")
VERBS += ("finetune", "predict", "export", "demo")


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("trained")
    more = ("--iterations", 4, "--batch-size", 8, "--lr", 0.01, "--run", place / "run")
    result = run_deepres(place, "train", "resnet8", "--data", folder, *more, DEEPRES_CACHE=str(place / "cache"))
    assert result.returncode == 0, result.stderr
    return place / "run"


def test_every_verb_has_help_with_an_example(deepres):
    assert all(verb in deepres("--help").stdout for verb in VERBS)
    for verb in VERBS:
        assert f"Example: deepres {verb}" in deepres(verb, "--help").stdout


def test_the_version_is_printed(deepres):
    assert deepres("--version").stdout.startswith("deepres 0.")


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="OpenMP is not GNU's here")
def test_threads_that_wait_for_each_other_sleep_soon(process, monkeypatch):
    """Or they would take the time of what else runs; what the user has set stays."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    told = {"OMP_DISPLAY_ENV": "verbose"}
    assert "GOMP_SPINCOUNT = '10000'" in process("info", "resnet20", **told).stderr
    assert "GOMP_SPINCOUNT = '7'" in process("info", "resnet20", **told, GOMP_SPINCOUNT="7").stderr


def test_info_of_a_network_prints_its_stages(deepres):
    table = json.loads(deepres("info", "resnet50", "--json").stdout)[0]
    assert table["rows"][-1]["parameters"] == 25_557_032
    assert table["rows"][-1]["multiply-adds"] == 3_857_973_248
    assert table["rows"][-1]["weighted layers"] == 50


@pytest.mark.long
def test_info_prints_table_1_and_the_cifar_table_in_80_columns(process):
    output = process("info", COLUMNS="80").stdout
    for figure in ("60,192,808", "11,282,415,616", "19,421,274", "highway32", "resnet50-32px"):
        assert figure in output


def test_data_describes_a_folder(deepres, folder):
    facts = json.loads(deepres("data", folder, "--json").stdout)
    assert facts["classes"] == ["ant", "bee", "cow"]
    assert facts["train"]["images"] == 48


def test_eval_of_a_run_gives_the_figures_of_its_end(deepres, trained, folder):
    done = json.loads((trained / "done.json").read_text())
    report = json.loads(deepres("eval", trained, "--json").stdout)
    assert report["top1_error"] == round(done["test_error"], 4)
    assert report["top5_error"] == 0.0  # three classes
    assert sum(map(sum, report["confusion"])) == report["images"] == 18
    text = deepres("eval", last_weights(trained), "--data", folder).stdout
    assert "0 ant" in text
    assert "top-1 error" in text and "top-5 error" not in text  # of three classes it says nothing


def test_what_nothing_can_be_learned_from_is_refused(refused, tmp_path):
    """One class alone, and whole images that are not square."""
    images.write_folder(tmp_path / "flowers", {"rose": 5})
    assert "has one class alone" in refused("train", "resnet8", "--data", "flowers", "--iterations", 1)
    images.write_folder(tmp_path / "wide", {"rose": 5, "tulip": 5}, size=(12, 8))
    assert "give --image-size 8" in refused("train", "resnet8", "--data", "wide", "--iterations", 1)


def test_eval_reads_a_plain_state_dict_whose_network_and_mean_are_named(deepres, trained, folder, tmp_path):
    from safetensors.torch import load_file

    state = {name: value for name, value in load_file(last_weights(trained)).items() if not name.startswith("deepres.")}
    torch.save(state, tmp_path / "state.pt")
    how = ("--network", "resnet8", "--mean", "0.5,0.5,0.5", "--to", "named.safetensors")
    assert deepres("convert", "state.pt", *how).returncode == 0
    result = deepres("eval", "named.safetensors", "--data", folder, "--json")
    assert json.loads(result.stdout)["images"] == 18


def test_settings_come_from_toml_and_the_command_line(deepres, folder, tmp_path):
    text = f'network = "resnet8"\ndata = "{folder}"\nseed = 4\n'
    text += "[recipe]\niterations = 2\nmilestones = [1]\nbatch_size = 6\n"
    (tmp_path / "mine.toml").write_text(text)
    result = deepres("train", "--config", "mine.toml", "--batch-size", 4, "--run", "run", "--bn-group", 2)
    assert result.returncode == 0, result.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["seed"], config["recipe"]["batch_size"], config["recipe"]["bn_group"]) == (4, 4, 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("info", "resnet-50"), "did you mean resnet50"),
        (("info", "resnet1001"), "not 6n+2"),
        (("train", "resnet20", "--data", "cifar-10", "--iterations", 2), "cifar10"),
        (("train", "resnet20"), "--data"),
        (("train", "--data", "cifar10"), "no network"),
        (("train", "resnet20", "--data", "cifar10", "--batch-size", 0), "batch_size"),
        (("train", "resnet20", "--data", "cifar10", "--lr", -0.1), "lr"),
        (("train", "resnet20", "--data", "cifar10", "--iterations", 0), "iterations"),
        (("train", "resnet20", "--data", "cifar10", "--set", "momentum"), "field=value"),
        (("train", "resnet20", "--data", "cifar10", "--set", "momentun=0.5"), "momentum"),
        (("train", "resnet20", "--data", "cifar10", "--recipe", "imagined"), "cifar-deep"),
        (("train", "vgg16", "--data", "cifar10", "--recipe", "fast"), "optimizer=sgd"),
        (("train", "resnet20", "--data", "cifar10", "--iterations", 9, "--set", "milestones=10"), "within the 9 iter"),
        (("reproduce", "fig66"), "did you mean fig6"),
        (("reproduce", "fig6", "--seeds", 0), "--seeds"),
        (("report", "nowhere"), "nowhere"),
        (("eval", "nowhere.safetensors", "--data", "cifar10"), "nowhere.safetensors"),
        (("train", "--like", "nowhere"), "nowhere"),
        (("finetune", "resnet50", "--data", "cifar10"), "give one, a run folder, or hf:owner/name"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(refused, arguments, words):
    assert words in refused(*arguments)


def test_pictures_of_different_sizes_are_led_to_what_takes_them(refused, photographs):
    assert "deepres data check" in refused("data", photographs, "--split", "20/8")


def test_a_folder_of_pictures_in_place_of_weights_is_named(refused, photographs):
    assert f"{photographs} is no run folder" in refused("eval", photographs, "--data", photographs)


def test_a_run_begins_by_saying_how_it_will_train(deepres, folder):
    """`--image-size` makes whole images of pictures, and with them another recipe."""
    more = ("--iterations", 1, "--batch-size", 4, "--lr", 0.01)
    result = deepres("train", "resnet18", "--data", folder, "--image-size", 32, *more)
    assert "resnet18: recipe cifar, 1 iterations of 4 whole images, rate 0.01" in result.stderr


def test_weights_of_another_net_are_refused_with_the_keys(refused, trained, folder, tmp_path):
    from safetensors.torch import load_file

    torch.save(dict(list(load_file(last_weights(trained)).items())[3:]), tmp_path / "part.pt")
    message = refused("eval", "part.pt", "--data", folder, "--network", "resnet14")
    assert "not of resnet14" in message
    assert "missing" in message


def test_weights_with_a_header_cannot_be_called_another_net(refused, trained, folder):
    assert "resnet8, not of plain8" in refused("eval", trained, "--data", folder, "--network", "plain8")


def test_a_foreign_pickle_is_refused_and_not_run(refused, folder, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    (tmp_path / "net.pt").write_bytes(pickle.dumps({"weight": Trap()}))
    assert "refused" in refused("eval", "net.pt", "--data", folder, "--network", "resnet8")
    assert not (tmp_path / "sprung").exists()


def test_a_folder_that_is_no_run_is_left_alone(refused, folder, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    assert "holds no run" in refused("train", "resnet8", "--data", folder, "--iterations", 2, "--run", "mine")


def test_a_broken_configuration_file_is_named(refused, tmp_path):
    (tmp_path / "mine.toml").write_text("network = [")
    assert "mine.toml" in refused("train", "--config", "mine.toml")


def test_what_the_system_refuses_is_one_sentence(refused, folder, tmp_path):
    (tmp_path / "file").write_text("")
    more = ("--data", folder, "--iterations", 1, "--batch-size", 4)
    assert "the system refuses" in refused("train", "resnet8", *more, "--run", "file")


@pytest.mark.usefixtures("checked_types")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"network": "resnet20", "data": "cifar10", "recipe": "fast"}', "table"),
        ("[]", "table"),
        ('{"network": 20, "data": "cifar10"}', "network"),
        ('{"network": "resnet8", "data": "cifar10", "recipe": {"milestones": [-5, 3]}}', "milestones"),
        ('{"network": "resnet8", "data": "cifar10", "seed": 18446744073709551616}', "seed"),
        ('{"network": "resnet8", "data": "cifar10", "memory_budget": 1e999}', "memory_budget"),
        ('{"network": "highway19", "data": "cifar10", "recipe": {"optimizer": "muon"}}', "optimizer=sgd"),
    ],
)
def test_a_configuration_of_another_shape_is_one_sentence(refused, tmp_path, text, words):
    (tmp_path / "mine.json").write_text(text)
    assert words in refused("train", "--config", "mine.json")


def test_a_batch_of_one_value_a_channel_is_refused(refused, folder):
    more = ("--image-size", 32, "--iterations", 1, "--batch-size", 3, "--bn-group", 2)
    assert "would see one image" in refused("train", "resnet18", "--data", folder, *more)
