"""Variations of a config, chosen on held-out images."""

import json

import pytest
from small import SMALL, flags

from vgg_jax import cli, sweep
from vgg_jax.console.errors import UserError
from vgg_jax.runs import log
from vgg_jax.tables import sweep as tables, train

RECIPE = '''"""A recipe with variations."""

from configs.quickstart import get_config as quickstart


def get_config():
    return quickstart()


def sweep():
    yield {}
    for rate in (0.02, 1e-9):
        yield {"optimizer.learning_rate": rate}
'''
SHORT = SMALL | {"train.save_minutes": "0"}


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(RECIPE)
    return file


def given(recipe, *more, **fields):
    where = ["--config", str(recipe), "--workdir", str(recipe.parent / "runs")]
    return [*where, *more, *flags(SHORT | {field.replace("__", "."): value for field, value in fields.items()})]


def test_a_sweep_ranks_by_held_out_accuracy_and_goes_on(recipe, capsys, monkeypatch):
    sweep.main(given(recipe))
    out, folder = capsys.readouterr().out, recipe.parent / "runs"
    assert sorted(p.name for p in folder.iterdir() if p.is_dir()) == [
        "optimizer.learning_rate=0.02", "optimizer.learning_rate=1e-09", "unchanged",
    ]  # fmt: skip
    rows = json.loads((folder / "sweep.json").read_text())["rows"]
    means = [sum(row["held_out_accuracy"]) / 2 for row in rows]
    assert means == sorted(means, reverse=True) and rows[-1]["name"] == "optimizer.learning_rate=1e-09"
    for row in rows:
        runs = [folder / row["name"] / f"seed{seed}" for seed in row["seeds"]]
        assert row["held_out_accuracy"] == [log.read(run)[-1]["validation_accuracy"] for run in runs]
        assert row["held_out_images"] == 40 and row["seconds"] == [log.read(run)[-1]["seconds"] for run in runs]
    assert out.index("| unchanged |") < out.index("| optimizer.learning_rate=1e-09 |")
    assert "test" not in (folder / "sweep.json").read_text() and (folder / "sweep.png").exists()
    monkeypatch.setattr(train, "fit", lambda *_: pytest.fail("trained again"))
    cli_text = (folder / "sweep.md").read_text()
    sweep.main(given(recipe))
    assert (folder / "sweep.md").read_text() == cli_text
    sweep.main(given(recipe, "--table", "--seeds", "3"))  # a third that was not trained
    assert capsys.readouterr().out.count("| 2 |") == 6
    (folder / "unchanged" / "seed1" / "summary.json").unlink()  # not finished
    sweep.main(given(recipe, "--table"))
    said = capsys.readouterr()
    (line,) = [line for line in said.out.splitlines() if line.startswith("| unchanged ")]
    assert line.split(" | ")[3] == "1" and "left out" not in said.err
    sweep.main(given(recipe, "--table", optimizer__weight_decay="0.25"))
    said = capsys.readouterr()
    assert "seed0 holds a run of another config (optimizer.weight_decay); it is left out" in said.err
    assert "| 2 |" not in said.out
    row = {
        "name": "x",
        "seeds": [0, 1],
        "held_out_images": 40,
        "held_out_accuracy": [0.5, 0.7],
        "seconds": [10.0, 30.0],
    }
    assert tables.markdown([row]).splitlines()[2] == "| x | 60.00 ± 14.14 | 0.00 to 100.00 | 2 | 20 |  |"
    base = row | {"name": "unchanged", "seeds": [1, 2, 0], "held_out_accuracy": [0.6, 0.9, 0.42]}
    first, second = tables.markdown([row, base]).splitlines()[2:4]  # differences of 8 and 10 points; t = 12.706
    assert first.endswith("| 20 | +9.00 (-3.71 to +21.71) |") and second.endswith("| 20 |  |")
    alike = base | {"seeds": [0, 1], "held_out_accuracy": [160 / 200, 141 / 200]}
    both = row | {"held_out_accuracy": [169 / 200, 150 / 200]}  # 9 images more, though not as floats
    assert tables.markdown([both, alike]).splitlines()[2].endswith("| 20 |  |")
    even = tables.markdown([row | {"held_out_accuracy": [0.5, 0.5]}]).splitlines()[2]
    assert even == "| x | 50.00 ± 0.00 |  | 2 | 20 |  |"


def test_a_sweep_that_could_not_begin_leaves_room_for_another(recipe, ends):
    ends(sweep.main, given(recipe, "--seeds", "1", train__start_from="nosuch"), "nosuch is no run directory")
    assert not list((recipe.parent / "runs").rglob("config.json"))


GET_DATA = """

def get_data(config):
    import vgg_jax
    digits = vgg_jax.data("digits")
    return {name: (digits["train"].images[:n], digits["train"].labels[:n]) for name, n in SIZES.items()}
"""


def test_a_sweep_of_ones_own_data(recipe, ends):
    """Their own split is held out, whatever config.data says."""
    folder = recipe.parent / "runs"
    own = {"data__validation_size": "40", "data__train_size": "0", "train__epochs": "1"}
    recipe.write_text(RECIPE + GET_DATA.replace("SIZES", "{'train': 64, 'test': 10}"))
    ends(sweep.main, given(recipe, **own), "chooses on held-out images: get_data must return", alone=False)
    assert not folder.exists() or not list(folder.rglob("summary.json"))
    recipe.write_text(RECIPE + GET_DATA.replace("SIZES", "{'train': 64, 'test': 10, 'validation': 24}"))
    sweep.main(given(recipe, "--seeds", "1", **own | {"data__validation_size": "0"}))
    assert [row["held_out_images"] for row in json.loads((folder / "sweep.json").read_text())["rows"]] == [24] * 3


def test_what_a_sweep_refuses(recipe, ends):
    assert cli.VERBS["sweep"][0] == "vgg_jax.sweep"
    ends(sweep.main, given(recipe, data__validation_size="0"), "chooses on held-out images", "data.validation_size")
    ends(sweep.main, given(recipe, "--seeds", "0"), "--seeds takes 1 to 1000, not 0")
    for body, words in (
        ("yield {'optimizer.learning_rat': 1}", "did you mean optimizer.learning_rate?"),
        ("yield {}; yield {}", "yields unchanged twice"),
        ("yield 3", "has to yield overrides"),
        ("return []", "has to yield overrides"),
        ("yield {'train.epochs': 0}", "train.epochs"),
        ("raise ValueError('mine')", "mine.py cannot be run"),
    ):
        recipe.write_text(RECIPE.partition("    yield {}")[0] + f"    {body}\n")
        ends(sweep.main, given(recipe), words)
    recipe.write_text(RECIPE.partition("def sweep")[0])
    ends(sweep.main, given(recipe), "has no sweep(); see docs/recipes.md")
    assert not (recipe.parent / "runs").exists()


def test_a_variation_has_a_folder_of_its_own(recipe):
    names = ["a=(1, 2)", "a=(12,)", "x=" + "1" * 200, "x=" + "1" * 201, "y=../up"]
    folders = [tables._folder(name) for name in names]
    assert len(set(folders)) == 5 and all(len(f) < 130 and "/" not in f for f in folders)


def test_an_unfinished_variation_has_an_empty_row():
    rows = [{"name": "a|b", "seeds": [], "held_out_images": 40, "held_out_accuracy": [], "seconds": []}]
    assert "| a/b |  |  |  |  |" in tables.markdown(rows)
    with pytest.raises(UserError, match="1 to 1000"):
        train.check_seeds(1001)


@pytest.mark.parametrize("name", ["modern", "speedrun_mini"])
def test_shipped_sweeps_can_be_run(name, tmp_path):
    jobs = tables.plan(name, {"data.validation_size": "5000"}, 2, tmp_path)
    assert "unchanged" in jobs and len(jobs) >= 3
    assert all(len(seeded) == 2 for seeded in jobs.values())
