"""Every shipped config: checked, documented, and either trained for a step by the real command or traced."""

import ast
import dataclasses
import functools
import json
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from small import ALL, ROOT, config, dataset, flags, write_folder

from vgg_jax import main
from vgg_jax.console.errors import UserError
from vgg_jax.console.flags import path
from vgg_jax.datasets.load import load
from vgg_jax.model import vgg
from vgg_jax.model.network import count
from vgg_jax.model.vgg import VGG
from vgg_jax.runs import directory as rundir
from vgg_jax.runs.checkpoint import load_model
from vgg_jax.runs.log import read
from vgg_jax.settings import config as configs, help
from vgg_jax.settings.check import does_something
from vgg_jax.settings.fields import FIELDS
from vgg_jax.tables.rows import TABLES
from vgg_jax.training.step import first_images, init_state, make_recipe, make_train_chunk

PICTURES = True
NAMES = sorted(p.stem for p in (ROOT / "configs").glob("*.py") if p.stem not in ("__init__", "default"))
RECIPES = [n for n in NAMES if not n.startswith("landscape")]  # test_landscape.py tests those
# Together they use every choice and switch of all recipes.
TRAINED = ["bn_dropout", "plain_tied", "modern", "speedrun", "vgg_light"]
TRAINED += ["vgg_a_leaky_relu", "vgg_a_mse", "vgg_a_dropout_bn", "vgg_a_dropout_bn_res"]
if ALL:
    TRAINED = RECIPES


def choices(name):
    """The choices and switches of a recipe, as (field, value)."""
    flat = configs.flatten(config(name, {}))
    return {(k, v) for k, v in flat.items() if isinstance(v, (bool, str)) and not k.startswith("data.")}


def test_the_trained_recipes_have_every_choice():
    missing = set().union(*map(choices, RECIPES)) - set().union(*map(choices, TRAINED))
    assert not missing


@pytest.mark.parametrize("name", sorted(set(RECIPES) - set(TRAINED)))
def test_the_other_recipes_can_be_traced(name):
    c, data = config(name, {"model.width": "0.25"}, train__batch_size=16, train__micro_batch=0), dataset(64)
    recipe = make_recipe(c, 4, len(data))
    state = jax.eval_shape(lambda: init_state(recipe, 0, np.zeros((16, 32, 32, 3), np.float32)))
    after = jax.eval_shape(make_train_chunk(c, recipe, data), state, {"image": data.images, "label": data.labels}, 1)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)


@pytest.mark.parametrize("name", TRAINED)
def test_a_recipe_trains_a_step(name, tmp_path):
    """At a quarter of its width, which compiles and saves faster and runs the same code as the full width."""
    folder, run = write_folder(tmp_path / "data", {"cat": 8, "dog": 8}), tmp_path / "run"
    narrow = {} if config(name, {}).model.stages == "light" else {"model.width": "0.25"}
    small = {"data.name": "folder", "data.data_dir": str(folder), "data.validation_size": "0"}
    small |= {"train.batch_size": "16", "train.devices": "1"}
    one_epoch = ["--config.train.epochs=1", *flags(small | narrow)]
    main.main(["--config", str(ROOT / "configs" / f"{name}.py"), "--workdir", str(run), *one_epoch])
    (record,) = read(run)
    assert record["step"] == 1
    assert record["train_loss"] > 0 and record["learning_rate"] > 0
    _, trained = load_model(run, "latest", rundir.read_run(run)[0], 2)
    c, data = rundir.read_run(run)[0], load(config(name, small | narrow))["train"]
    init = jax.jit(functools.partial(init_state, make_recipe(c, 2, len(data))))  # the program that the run started with
    begun = init(np.uint32(c.seed), first_images(c, data)).params
    assert not np.allclose(trained["params"]["logits"]["kernel"], begun["logits"]["kernel"])
    assert json.loads((run / "summary.json").read_text())["protocols"]["final"]["step"] == 1
    assert (run / "curves.png").stat().st_size > 1000
    assert (run / "samples.png").stat().st_size > 1000


@pytest.mark.parametrize("name", NAMES)
def test_overlays_are_short_and_open_with_their_command(name):
    text = (ROOT / "configs" / f"{name}.py").read_text()
    doc = ast.get_docstring(ast.parse(text)) or ""
    command = "landscape" if name.startswith("landscape") else "main"
    assert f"python -m vgg_jax.{command} --config configs/{name}.py" in doc
    assert "RUNTIME" in doc and "EXPECTED" in doc
    assert len(text[text.index("def ") :].splitlines()) <= 20


def test_every_field_is_explained_and_docs_have_what_is_declared():
    assert all(field.meaning for field in FIELDS.values())
    assert (ROOT / "docs" / "fields.md").read_text() == help.markdown(), "run python -m vgg_jax.settings.help"
    assert set(configs.flatten(config("landscape", {}))) == set(FIELDS)


def test_what_a_field_may_be_is_what_the_code_knows():
    """The choices are declared in a module without JAX, apart from the functions that they name."""
    assert set(FIELDS["model.activation"].choices) == set(vgg.ACTIVATIONS)
    assert set(FIELDS["model.kernel_init"].choices) == set(vgg.KERNEL_INITS)
    fields = {f.name: f.default for f in dataclasses.fields(VGG) if f.name not in ("parent", "name")}
    declared = {name.removeprefix("model."): f.default for name, f in FIELDS.items() if name.startswith("model.")}
    assert {k: fields[k] for k in declared} == declared and set(fields) - set(declared) == {"num_classes", "axis_name"}


def test_the_first_seeds_rows_differ_only_in_batch_norm_and_dropout():
    rows = {row.config: configs.flatten(config(row.config, {})) for row in TABLES["project1"]}
    dropout = {"model.stage_dropout", "model.head_dropout", "model.spatial_dropout"}
    changed = {name: {k for k in row if row[k] != rows["bn"][k]} for name, row in rows.items()}
    assert changed == {
        "bn_dropout": dropout, "dropout": dropout | {"model.batch_norm"}, "bn": set(),
        "plain_tied": {"model.batch_norm", "model.tied"}, "plain": {"model.batch_norm"},
    }  # fmt: skip
    recipe = rows["bn_dropout"]
    expected = {
        "optimizer.name": "sgd", "optimizer.learning_rate": 0.01, "optimizer.momentum": 0.9,
        "optimizer.weight_decay": 5e-4, "optimizer.decay": "all", "optimizer.nesterov": False,
        "schedule.name": "step", "schedule.decay_rate": 0.5, "schedule.decay_epochs": 25.0,
        "train.batch_size": 128, "train.epochs": 300, "augment.flip": "random", "augment.crop": 0,
        "loss.name": "cross_entropy", "model.stages": "D", "model.hidden": (512,),
        "model.batch_norm_epsilon": 1e-5, "model.batch_norm_head": False, "data.normalization": "half",
        "model.kernel_init": "msr", "model.bias_init": "pytorch", "model.spatial_dropout": True,
        "model.stage_dropout": (0.3, 0.4, 0.4, 0.4, 0.4), "model.head_dropout": (0.5, 0.5),
    }  # fmt: skip
    assert {k: recipe[k] for k in expected} == expected
    parameters = {name: sum(row.parameters for row in count(VGG(**config(name, {}).model))) for name in rows}
    normed, without = 14_990_922, 14_982_474  # counted by hand from project 1's code
    assert parameters == {
        "bn_dropout": normed, "dropout": without, "bn": normed, "plain_tied": 4_953_162, "plain": without,
    }  # fmt: skip


SEED2 = [row.config for row in TABLES["project2"]]


def test_the_second_seeds_rows_are_networks_and_recipes_of_their_own():
    """No two names build the same network and training, as three names in project 2's code do."""
    recipes = {name: configs.flatten(config(name, {})) for name in SEED2}
    networks = {
        name: (
            [(row.name, row.parameters) for row in count(VGG(**config(name, {}).model))],
            *(
                recipes[name][f"model.{switch}"]
                for switch in ("activation", "batch_norm", "head_dropout", "kernel_init")
            ),
        )
        for name in SEED2
    }
    by_recipe_alone = {
        "vgg_a_l2",
        "vgg_a_mse",
        "vgg_a_bn_sgd",
    }  # the networks of VGG_A and VGG_BatchNorm, trained differently
    assert len({repr(networks[name]) for name in SEED2 if name not in by_recipe_alone}) == len(SEED2) - 3
    assert len({json.dumps(recipe) for recipe in recipes.values()}) == len(SEED2) == 11
    base = recipes["vgg_a"]
    init = {"model.kernel_init", "model.bias_init"}  # project 2 initialises VGG_A and VGG_BatchNorm alone by Xavier
    dropout = init | {"model.head_dropout"}
    changed = {name: {k for k, v in recipe.items() if v != base[k]} for name, recipe in recipes.items()}
    assert changed == {
        "vgg_a": set(),
        "vgg_a_l2": {"optimizer.weight_decay"},
        "vgg_a_mse": {"loss.name"},
        "vgg_a_bn": {"model.batch_norm"},
        "vgg_a_bn_sgd": {"model.batch_norm", "optimizer.name"},
        "vgg_a_dropout": dropout,
        "vgg_a_dropout_bn": dropout | {"model.batch_norm"},
        "vgg_light": init | {"model.stages", "model.hidden"},
        "vgg_a_dropout_bn_res": dropout | {"model.batch_norm", "model.residual"},
        "vgg_a_leaky_relu": {"model.activation", "model.kernel_init"},
        "vgg_a_dropout_bn_res_leaky": dropout | {"model.batch_norm", "model.residual", "model.activation"},
    }  # fmt: skip
    expected = {
        "optimizer.name": "adam", "optimizer.learning_rate": 1e-3, "optimizer.weight_decay": 0.0,
        "schedule.name": "constant", "train.batch_size": 1024, "train.epochs": 30, "augment.flip": "none",
        "data.normalization": "half", "model.stages": "A", "model.hidden": (512, 512), "model.batch_norm": "none",
        "model.batch_norm_head": False, "model.kernel_init": "xavier_normal", "model.stage_dropout": (),
    }  # fmt: skip
    assert {k: base[k] for k in expected} == expected


@pytest.mark.parametrize(("batch", "micro_batch"), [(10, 3), (256, 15), (32, 12), (500, 7)])
def test_a_batch_that_does_not_divide_gets_the_nearest_that_does(batch, micro_batch):
    def refused(size):
        try:
            config("default", {"train.batch_size": size, "train.micro_batch": micro_batch})
        except UserError as error:
            return str(error)

    accepted = [size for size in range(2, 2 * batch) if not refused(size)]
    nearest = int(refused(batch).rpartition(" ")[2])
    assert nearest in accepted and abs(nearest - batch) == min(abs(size - batch) for size in accepted)


def test_a_field_of_dropout_without_dropout_does_nothing():
    fields = {"model.spatial_dropout": True}
    assert not does_something("model.spatial_dropout", configs.flatten(config("default", fields)))
    assert does_something("model.spatial_dropout", configs.flatten(config("bn_dropout", fields)))


ONE_PIXEL = {"model.stages": "A", "model.pool": "first", "model.hidden": (), "model.batch_norm": "after"}


@pytest.mark.parametrize(("name", "fields", "words"), [
    ("default", {"train.batch_size": 1}, "batch_size=1: BatchNorm after a dense layer .* smallest that works is 2$"),
    ("default", {"train.batch_size": 1, "train.micro_batch": 4}, "train.batch_size=1: .* smallest that works is 2$"),
    ("default", {"train.micro_batch": 1}, "train.micro_batch=1: .* smallest that works is 2$"),
    ("default", {"train.micro_batch": 1, "train.batch_size": 9}, "train.micro_batch=1: .* smallest that works is 3$"),
    ("default", {"train.micro_batch": 1, "train.batch_size": 7}, "train.micro_batch=1: .* smallest that works is 7$"),
    ("speedrun", {"train.micro_batch": 1, "data.image_size": 8}, "on a map of one pixel .* smallest that works is 2$"),
    ("speedrun", {"train.micro_batch": 1, "augment.small_size": 8}, "on a map of one pixel"),
    ("bn", ONE_PIXEL | {"train.batch_size": 1}, "train.batch_size=1: BatchNorm on a map of one pixel"),
    ("landscape", {"model.batch_norm_head": True, "train.batch_size": 1}, "after a dense layer"),  # it trains both
    ("landscape", {"model.batch_norm_head": True, "landscape.images": 1},
     "config.landscape.images=1"),
])  # fmt: skip
def test_batch_norm_is_never_given_one_value_per_channel(name, fields, words):
    with pytest.raises(UserError, match=words):
        configs.load(name, fields)


@pytest.mark.parametrize(("name", "fields"), [
    ("default", {"train.batch_size": 2}),
    ("default", {"train.batch_size": 9, "train.micro_batch": 3}),
    ("plain", {"train.batch_size": 1}),
    ("vgg_a_bn", {"train.batch_size": 1}),  # its last map has 2x2 pixels, its head no BatchNorm
    ("bn", ONE_PIXEL | {"train.batch_size": 1, "data.image_size": 64}),
    ("speedrun", {"train.micro_batch": 1}),
    (ROOT / "examples" / "resnet.py", {"train.batch_size": 1}),
    ("landscape", {"train.batch_size": 1, "landscape.images": 1}),
])  # fmt: skip
def test_a_batch_of_one_is_taken_where_its_map_has_more_values(name, fields):
    configs.load(name, fields)


def test_under_a_batch_norm_of_two_values_there_are_gradients_and_of_one_there_are_none():
    model, images = VGG(stages="light", width=0.25, hidden=(8,), num_classes=4), dataset(2).images / 255
    variables = model.init(jax.random.key(0), images)

    @jax.jit
    def gradients(images):
        def loss(params):
            given = {"params": params, "batch_stats": variables["batch_stats"]}
            return (model.apply(given, images, train=True, mutable=["batch_stats"])[0] ** 2).sum()

        return jax.grad(loss)(variables["params"])

    one, two = (jnp.abs(gradients(images[:n])["conv2_1"]["kernel"]).max() for n in (1, 2))
    assert one < 1e-6 < 1e-4 < two


def test_json_round_trip():
    for name in NAMES:
        original = config(name, {})
        assert configs.flatten(configs.from_json(configs.to_json(original))) == configs.flatten(original)


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("train.epochs", "3", 3),
        ("optimizer.learning_rate", "1", 1.0),
        ("optimizer.learning_rate", "1e-3", 1e-3),
        ("model.residual", "true", True),
        ("model.hidden", "(512, 512)", (512, 512)),
        ("model.hidden", "64", (64,)),
        ("model.hidden", "()", ()),
        ("data.data_dir", "1", "1"),
    ],
)
def test_overrides_take_their_fields_type(field, text, value):
    got = configs.flatten(config("default", {field: text}))[field]
    assert got == value and type(got) is type(value)


def test_a_file_that_divides_its_widths_is_told():
    c = ConfigDict(config("bn", {}).to_dict())
    c.model.hidden = (1024 / 2,)
    with pytest.raises(UserError, match=r"config\.model\.hidden takes whole numbers, not 512\.0"):
        configs.override(c, {})


def test_a_tilde_is_the_home_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my.py").write_text("from configs.quickstart import get_config\n")
    assert configs.load("~/my.py").data.name == "digits"
    monkeypatch.setenv("HOME", "/home/me")
    assert path("~/runs/a") == Path("/home/me/runs/a")
    assert path("~nobody.of.that.name/a") == Path("~nobody.of.that.name/a")
    monkeypatch.setattr("os.path.expanduser", lambda text: text)  # as for a user without HOME and without a name
    assert path("~/runs/a") == Path(tempfile.gettempdir(), "runs/a")


def test_a_config_of_an_earlier_version_means_what_it_did():
    now = config("landscape", {})
    then = now.to_dict()
    younger = [name for name, field in FIELDS.items() if field.before is not None]
    assert len(younger) >= 16
    for field in younger:
        group, name = field.split(".")
        del then[group][name]
    then["augment"]["flip"] = True
    then["landscape"]["surface_statistics"] = "stored"  # now both kinds
    other = {
        "augment.flip": "random",
        "data.shrink": "bicubic",
        "landscape.equal_loss": 0.0,
        "landscape.update_sizes": (1.0,),
    }
    assert configs.flatten(configs.from_json(json.dumps(then))) == configs.flatten(now) | other
    del then["landscape"]
    assert not hasattr(configs.from_json(json.dumps(then)), "landscape")


NOTHING = [
    ({"optimizer.name": "adam", "optimizer.momentum": 0.5}, "optimizer.momentum=0.5", "=sgd or sgdw or muon"),
    ({"optimizer.name": "adamw", "optimizer.nesterov": True}, "optimizer.nesterov=True", "optimizer.name="),
    ({"optimizer.muon_rate": 0.1}, "optimizer.muon_rate=0.1", "optimizer.name=muon"),
    ({"optimizer.weight_decay": 0.0, "optimizer.decay": "kernels"}, "optimizer.decay=kernels", "weight_decay"),
    ({"schedule.name": "cosine", "schedule.decay_rate": 0.1}, "schedule.decay_rate=0.1", "step or milestones"),
    ({"schedule.milestones": (3.0,)}, "schedule.milestones=(3.0,)", "schedule.name=milestones"),
    ({"schedule.name": "one_cycle", "schedule.warmup_epochs": 2.0}, "schedule.warmup_epochs=2.0", "cosine"),
    ({"data.resize": True}, "data.resize=True", "data.name=folder"),
    ({"data.name": "digits", "data.data_dir": "x"}, "data.data_dir=x", "cifar10 or cifar100 or folder"),
    ({"augment.padding": "reflect"}, "augment.padding=reflect", "augment.crop"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "said", "needed"), NOTHING)
def test_a_field_that_does_nothing_is_named(fields, said, needed, capsys):
    configs.check_trains(configs.load("default", fields))
    line = capsys.readouterr().err
    assert line.startswith(f"config.{said} does nothing without ") and needed in line and line.count("\n") == 1


def test_no_shipped_recipe_has_one_and_those_of_a_study_are_not_trained(capsys):
    for file in sorted((ROOT / "configs").glob("[a-z]*.py")):
        c = configs.load(file)
        if file.stem.startswith("landscape"):
            with pytest.raises(UserError, match=r"is for python -m vgg_jax\.landscape"):
                configs.check_trains(c)
        else:
            configs.check_trains(c)
    assert capsys.readouterr().err == ""


def test_fields_younger_than_a_run_of_own_data_are_not_its_own():
    """get_data may read data.resize; data.shrink, which older runs lack, is nothing without it."""
    flat = configs.flatten(configs.load("default")) | {"code.data": True}
    assert does_something("data.resize", flat) and not does_something("data.shrink", flat)
    assert "data.shrink" not in rundir.fields(configs.load("default"))


@pytest.mark.parametrize(("field", "text", "value"), [
    ("own.depth", "3", 3), ("own.depth", "deep", "deep"), ("own.widths", "(4, 8)", (4, 8)), ("own.widths", "[4]", (4,)),
])  # fmt: skip
def test_fields_of_ones_own_may_be_none_or_lists(field, text, value, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from configs.quickstart import get_config as quickstart\nfrom ml_collections import ConfigDict\n\n\n"
        "def get_config():\n    config = quickstart()\n"
        "    config.own = ConfigDict({'depth': None, 'widths': [1, 2]})\n    return config\n"
    )
    assert configs.flatten(configs.load(str(tmp_path / "mine.py"), {field: text}))[field] == value


def test_a_field_that_json_cannot_hold_is_refused(tmp_path):
    c = config("quickstart", {}).to_dict() | {"own": {"root": tmp_path}}
    with pytest.raises(UserError, match=r"cannot be kept in config.json \(.*Path"):
        configs.load(ConfigDict(c))


def test_overrides_may_be_numpys():
    given = {"optimizer.learning_rate": np.float64(0.1), "seed": np.int64(3), "augment.cutout": np.uint8(4),
             "optimizer.nesterov": np.bool_(True), "model.hidden": np.array([8, 4])}  # fmt: skip
    flat = configs.flatten(configs.load("default", given))
    assert {field: flat[field] for field in given} == {
        "optimizer.learning_rate": 0.1, "seed": 3, "augment.cutout": 4, "optimizer.nesterov": True,
        "model.hidden": (8, 4),
    }  # fmt: skip
