"""The benchmarks run, and their figures are consistent."""

import json
import subprocess
import sys

from small import ROOT, SMALL, flags


def run(module, file, *given):
    """(figures, printed text) of a benchmark's command."""
    command = [sys.executable, "-m", f"benchmarks.{module}", "--json", str(file), *given]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return json.loads(file.read_text()), done.stdout


def test_train_step(tmp_path):
    """The PyTorch side does not have this network, so it is left out even if PyTorch is installed."""
    given = ["--config", "configs/vgg_light.py", "--batch_size", "8", "--rounds", "1"]
    figures, printed = run("train_step", tmp_path / "figures.json", *given)
    ours, stock = figures["rows"].values()
    assert list(figures["rows"]) == ["vgg_jax", "stock Flax"] and "stock Flax" in printed
    assert abs(ours["images_per_second"] - figures["steps_a_round"] * 8 / ours["seconds"][0]) < 0.1
    assert stock["vgg_jax_is_times_faster"] == round(stock["seconds"][0] / ours["seconds"][0], 2)
    assert len(ours["losses"]) == 10 and ours["losses"][-1] < ours["losses"][0]
    assert stock["largest_relative_loss_difference_in_10_steps"] < 1e-3


def test_end_to_end(tmp_path):
    given = ["--config", "configs/quickstart.py", *flags(SMALL)]
    figures, printed = run("end_to_end", tmp_path / "figures.json", *given)
    for caches in ("empty caches", "filled caches"):
        seconds = figures[caches]["seconds"]
        assert seconds.keys() > {"imports", "compile", "train", "other"} and caches in printed
        assert min(seconds.values()) >= 0 and figures[caches]["images_per_second"] > 0
