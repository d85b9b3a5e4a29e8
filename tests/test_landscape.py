"""The measures against closed forms, and the complete study on a small network."""

import json
import operator
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from small import OWN_NETWORK, SMALL, config, dataset, flags, touch
from test_bad_input import ends  # noqa: F401, a fixture

from vgg_jax.console.errors import UserError
from vgg_jax.datasets.batches import epoch_order, make_get_batch
from vgg_jax.landscape import __main__ as landscape, band, hessian, kept, probe, study, surface, verdict
from vgg_jax.runs.lock import lock
from vgg_jax.runs.log import read
from vgg_jax.settings import config as configs
from vgg_jax.training.step import init_state, make_recipe, make_train_step

PICTURES = True
SIZES = (0.01, 0.02, 0.05, 0.1)
TINY = SMALL | {
    "data.train_size": "64", "data.validation_size": "0", "train.batch_size": "16", "train.epochs": "2",
    "train.eval_epochs": "1", "landscape.seeds": "2", "landscape.probe_steps": "3", "landscape.images": "32",
    "landscape.surface_points": "5", "landscape.hessian_iterations": "6", "landscape.ascent_steps": "3",
    "landscape.band_epochs": "1",
}  # fmt: skip


def quadratic(eigenvalues, seed=0):
    """(L, A, w): L(w) = w A w / 2 with these eigenvalues, in a random basis."""
    n = len(eigenvalues)
    basis, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    matrix = (basis * np.asarray(eigenvalues)) @ basis.T
    w = np.random.default_rng(seed + 1).normal(size=n).astype(np.float32)
    a = jnp.asarray(matrix, jnp.float32)
    return (lambda p: 0.5 * p["w"] @ a @ p["w"]), matrix, {"w": jnp.asarray(w)}


def probed(objective, params, together=None):
    more = {} if together is None else {"together": together}
    found = jax.jit(lambda p: probe.along_gradient(objective, p, jnp.array(SIZES, jnp.float32), **more))(params)
    return {k: np.asarray(v) for k, v in found.items()}


def test_along_the_gradient_of_a_quadratic():
    """grad L(w - e g) = g - e A g, so its distance to g is e ||A g||, and L(w - e g) = L - e g.g + e^2 g.A.g / 2."""
    objective, a, params = quadratic([0.5, 1.0, 2.0, 7.0])
    found = probed(objective, params)
    g, sizes = a @ np.asarray(params["w"]), np.array(SIZES)
    np.testing.assert_allclose(found["gradient_norm"], np.linalg.norm(g), rtol=1e-5)
    np.testing.assert_allclose(found["distances"], sizes * np.linalg.norm(a @ g), rtol=1e-4)
    losses = float(objective(params)) - sizes * (g @ g) + sizes**2 * (g @ a @ g) / 2
    np.testing.assert_allclose(found["losses"], losses, rtol=1e-4)
    np.testing.assert_allclose(probe.band_width(found["losses"]), losses.max() - losses.min(), rtol=1e-4)
    np.testing.assert_allclose(probe.predictiveness(found["distances"]), 0.1 * np.linalg.norm(a @ g), rtol=1e-4)


def test_beta_smoothness_is_the_eigenvalue_met_along_the_gradient():
    """If the gradient is an eigenvector, its eigenvalue exactly; otherwise ||A g|| / ||g||, at most the largest one."""
    objective, a, params = quadratic([0.5, 1.0, 2.0, 7.0])
    values, vectors = np.linalg.eigh(a)
    for value, vector in zip(values, vectors.T):
        found = probed(objective, {"w": jnp.asarray(vector, jnp.float32)})
        beta = probe.smoothness(found["distances"], found["gradient_norm"], SIZES)
        np.testing.assert_allclose(beta, value, rtol=2e-3)
    found = probed(objective, params)
    g = a @ np.asarray(params["w"])
    beta = probe.smoothness(found["distances"], found["gradient_norm"], SIZES)
    np.testing.assert_allclose(beta, np.linalg.norm(a @ g) / np.linalg.norm(g), rtol=1e-3)
    assert beta <= 7.0 * 1.001


def network(batch_norm="before"):
    """(score, params, stats, images' loss) of a small network on random images."""
    model = {"model__stages": "light", "model__width": "0.25", "model__hidden": "(8,)"}
    c = config("vgg_a", {}, model__batch_norm=batch_norm, train__batch_size="8", **model)
    recipe = make_recipe(c, 4, 16)
    state = init_state(recipe, 0)
    images = jax.random.normal(jax.random.key(1), (8, 32, 32, 3))
    labels = jnp.arange(8) % 4

    def score(params, stats):
        logits = recipe.model.apply({"params": params, "batch_stats": stats}, images)
        return recipe.loss(logits, labels).mean(), jnp.mean(logits.argmax(-1) == labels)

    return score, state.params, state.batch_stats


def loop(function, xs):
    """`together` as a plain Python loop."""
    results = [function(jax.tree.map(operator.itemgetter(i), xs)) for i in range(len(jax.tree.leaves(xs)[0]))]
    return jax.tree.map(lambda *parts: jnp.stack(parts), *results)


@pytest.mark.parametrize("batch_norm", ["none", "before"])
def test_vmap_and_a_plain_loop_agree(batch_norm):
    score, params, stats = network(batch_norm)
    params = jax.tree.map(lambda w: w / 4, params)  # a short gradient, which steps over no ReLU's kink
    by = [probed(lambda p: score(p, stats)[0], params, t) for t in (None, lambda f, xs: jax.vmap(f)(xs), loop)]
    for other in by[1:]:
        for key in by[0]:
            np.testing.assert_allclose(other[key], by[0][key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("spread", [(-3.0, 0.0, 0.5, 1.0, 2.0, 9.0), (1.0, 2.0, 3.0, 4.0, 50.0)])
def test_lanczos_finds_the_whole_spectrum(spread):
    objective, _, params = quadratic(spread)
    found = hessian.spectrum(objective, params, len(spread), jax.random.key(0))
    np.testing.assert_allclose(found, sorted(spread), rtol=1e-4, atol=1e-4)


def test_lanczos_stops_when_the_eigenvalues_are_exhausted():
    objective, _, params = quadratic((1.0, 1.0, 1.0, 4.0, 4.0))
    found = np.asarray(hessian.spectrum(objective, params, 5, jax.random.key(0)))
    np.testing.assert_allclose(found, [0, 0, 0, 1, 4], atol=1e-3)


def test_hessian_of_a_network_against_the_full_matrix():
    score, params, stats = network()
    small = {"logits": params["logits"]}

    def objective(p):
        return score(params | p, stats)[0]

    flat, unravel = jax.flatten_util.ravel_pytree(small)
    exact = np.linalg.eigvalsh(jax.hessian(lambda v: objective(unravel(v)))(flat))
    found = hessian.spectrum(objective, small, len(flat), jax.random.key(0))
    np.testing.assert_allclose(found[-3:], exact[-3:], rtol=1e-3)
    v = jax.tree.map(lambda w: jax.random.normal(jax.random.key(2), w.shape), params)

    def full(p):
        return score(p, stats)[0]

    def slope(p):
        return sum(jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (jax.grad(full)(p), v))))

    product = jax.jit(lambda p: hessian.hessian_vector_product(full, p, v))(params)
    again = jax.jit(jax.grad(slope))(params)
    for a, b in zip(jax.tree.leaves(product), jax.tree.leaves(again)):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)


def test_the_relative_spectrum_does_not_change_when_layers_are_rescaled():
    """Two dense layers with a ReLU between: scaling one up and the next down changes no output."""
    x, keys = jax.random.normal(jax.random.key(0), (16, 5)), jax.random.split(jax.random.key(1))
    params = {"a": jax.random.normal(keys[0], (5, 6)), "b": jax.random.normal(keys[1], (6, 1))}

    def objective(p):
        return jnp.mean((jax.nn.relu(x @ p["a"]) @ p["b"]) ** 2)

    scaled = {"a": params["a"] * 4, "b": params["b"] / 4}
    top = {
        relative: [float(hessian.spectrum(objective, p, 12, jax.random.key(3), relative)[-1]) for p in (params, scaled)]
        for relative in (True, False)
    }
    np.testing.assert_allclose(objective(params), objective(scaled), rtol=1e-5)
    assert top[True][1] == pytest.approx(top[True][0], rel=0.02)
    assert top[False][1] != pytest.approx(top[False][0], rel=0.5)


def test_worst_case_of_a_linear_and_a_quadratic_loss():
    """One filter of norm 2 in a linear loss g.w: the worst loss within r is L + r ||w|| ||g||."""
    w, g = jnp.array([[0.0], [2.0]]), jnp.array([[3.0], [4.0]])
    worst = hessian.worst_case(lambda p: jnp.sum(g * p["w"]), {"w": w}, 0.1, 5)
    np.testing.assert_allclose(worst, 8 + 0.1 * 2 * 5, rtol=1e-5)
    # The worst |w|^2 / 2 is straight outwards: (1 + r)^2 |w|^2 / 2.
    worst = hessian.worst_case(lambda p: 0.5 * jnp.sum(p["w"] ** 2), {"w": w}, 0.25, 8)
    np.testing.assert_allclose(worst, 1.25**2 * 2, rtol=1e-5)


def test_directions_have_their_filters_norms():
    _, params, _ = network()
    d = surface.direction(jax.random.key(0), params)
    for w, x in zip(jax.tree.leaves(params), jax.tree.leaves(d)):
        assert w.shape == x.shape
        if w.ndim < 2:
            assert not np.any(x)
        else:
            by_filter = tuple(range(w.ndim - 1))
            np.testing.assert_allclose(np.sqrt((x**2).sum(by_filter)), np.sqrt((w**2).sum(by_filter)), rtol=1e-4)


def test_the_surface_at_the_origin_is_the_evaluated_loss(tmp_path):
    score, params, stats = network()
    scan = surface.make_scan(score)
    d1, d2 = (surface.direction(jax.random.key(i), params) for i in (0, 1))
    points = surface.grid(1.0, 5, 2)
    calls = []

    def at(some):
        calls.append(len(some))
        return scan(params, stats, d1, d2, some)

    class Silent:
        def update(self, n, note=""):
            pass

    file = tmp_path / "surface.npz"
    of = {"weights": "1"}
    values = surface.evaluate(at, points, file, of, Silent())
    np.testing.assert_allclose(values[12], np.stack(score(params, stats)), rtol=1e-6)
    moved = jax.tree.map(lambda w, a, b: w - a + 0.5 * b, params, d1, d2)
    np.testing.assert_allclose(values[3], np.stack(score(moved, stats)), rtol=1e-5)
    with np.load(file) as found:  # as a kill halfway leaves it
        half = found["values"].copy()
    half[10:] = np.nan
    kept.save(file, of, points=points, values=half)
    done = len(calls)
    np.testing.assert_array_equal(surface.evaluate(at, points, file, of, Silent()), values)
    assert len(calls) - done == -(-15 // surface.BATCH)
    surface.evaluate(at, points, file, {"weights": "2"}, Silent())
    assert len(calls) - done == -(-15 // surface.BATCH) - (-25 // surface.BATCH)


def test_negative_curvature_of_known_surfaces():
    x, y = np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9), indexing="ij")
    assert surface.negative_curvature(x**2 + y**2) == 0
    assert surface.negative_curvature(x**2 - y**2) == 1
    assert surface.negative_curvature(x**2 + y**2 + 3 * x * y) == 1
    assert 0.3 < surface.negative_curvature(x**3 + y**2) < 0.7
    exploding = np.where(x > 0.4, np.inf, x**2 - y**2)
    assert surface.negative_curvature(exploding) == 1


def test_the_band_of_learning_rates_is_that_of_runs_of_their_own():
    """Plain loops of the ordinary step, one per rate, give the losses that the joint program gives."""
    rates, data = (1e-3, 4e-3), dataset(32)
    shared = {"train__batch_size": "8", "model__stages": "light", "model__width": "0.25", "model__hidden": "(8,)"}
    c = config("vgg_a_bn", {}, **shared)
    found = band.train(c, data, rates, [3], 2)
    assert found.shape == (1, 2, 8)
    on_device = {"image": jnp.asarray(data.images), "label": jnp.asarray(data.labels)}
    for i, rate in enumerate(rates):
        one = config("vgg_a_bn", {}, optimizer__learning_rate=rate, **shared)
        recipe, get_batch = make_recipe(one, 4, 32), make_get_batch(one, data)
        state, losses, step = init_state(recipe, 3), [], jax.jit(make_train_step(recipe))
        for t in range(8):
            order = epoch_order(state.key, jnp.int32(t // 4), 32)
            state, metrics = step(state, get_batch(state.key, state.step, on_device, order))
            losses.append(metrics["loss"])
        np.testing.assert_allclose(found[0, i], losses, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(band.width(found), np.abs(found[:, 0] - found[:, 1]), rtol=1e-5)


def test_activation_statistics_are_those_of_the_signal_before_the_relu():
    c = config("vgg_a_bn", {}, model__stages="light", model__width="0.25", model__hidden="(8,)")
    recipe = make_recipe(c, 4, 16)
    state = init_state(recipe, 0)
    images = 3 * jax.random.normal(jax.random.key(1), (16, 32, 32, 3))
    found = probe.activations(recipe.model, state.variables, images, jax.random.key(0))
    assert found["activation_std"].shape == (2,)
    np.testing.assert_allclose(found["activation_mean"], 0, atol=1e-3)
    np.testing.assert_allclose(found["activation_std"], 1, atol=0.02)  # BatchNorm's output at its initialisation
    plain = recipe.model.clone(batch_norm="none")
    signal = probe.activations(plain, {"params": state.params}, 10 * images, jax.random.key(0))
    once = probe.activations(plain, {"params": state.params}, images, jax.random.key(0))
    np.testing.assert_allclose(signal["activation_std"], 10 * once["activation_std"], rtol=1e-4)
    np.testing.assert_allclose(signal["activation_off"], once["activation_off"], atol=1e-3)


def test_the_verdict_can_fall_either_way():
    keys = [m.key for m in verdict.MEASURES]
    plain, bn = {k: [2.0, 3.0] for k in keys}, {k: [1.0, 1.0] for k in keys}
    rows = {row["measure"]: row for row in verdict.judge({"plain": plain, "bn": bn})}
    assert rows["effective beta-smoothness"]["holds"] == "yes"
    assert rows["effective beta-smoothness"]["ratio"] == 2.5
    assert rows["test accuracy, final epoch"]["holds"] == "no"
    other = {row["measure"]: row for row in verdict.judge({"plain": bn, "bn": plain})}
    assert other["effective beta-smoothness"]["holds"] == "no"
    assert other["test accuracy, final epoch"]["holds"] == "yes"
    mixed = verdict.judge({"plain": plain, "bn": {k: [1.0, 9.0] for k in keys}})
    assert {row["holds"] for row in mixed} == {"mixed"}
    assert {row["holds"] for row in verdict.judge({"plain": plain, "bn": plain})} == {"mixed"}  # ties
    diverged = {k: [float("nan"), float("inf")] for k in keys}
    assert {row["holds"] for row in verdict.judge({"plain": diverged, "bn": bn})} == {"yes"}
    text = verdict.markdown(mixed, "note")
    assert "mixed (1 of 2 seeds)" in text and "2.5 ± 0.71" in text
    assert json.dumps(verdict.plain_json({"x": [float("inf"), 1.0]}), allow_nan=False) == '{"x": ["inf", 1.0]}'


def expected_numbers(folder, name):
    """All but one of the verdict's numbers of a network, by key, computed only from the study's files."""
    files = {kind: np.load(folder / f"{kind}_{name}.npz") for kind in ("probes", "rates", "surfaces", "sharp")}
    probes, rates, area, sharp = files.values()
    losses, distances, norms = probes["losses"], probes["distances"], probes["gradient_norm"][..., None]
    plane = area["plane"][..., 0]
    ring = [(i, j) for i in range(5) for j in range(5) if abs(np.hypot(i - 2, j - 2) - 1) <= 0.5]  # half a radius away
    runs = [folder / name / f"seed{seed}" for seed in (0, 1)]
    test = np.array([read(run)[-1]["test_accuracy"] for run in runs])
    train = np.array([json.loads((run / "summary.json").read_text())["train_accuracy"] for run in runs])
    return {
        "loss_band": (losses.max(-1) - losses.min(-1)).mean(-1),
        "predictiveness": distances.max(-1).mean(-1),
        "relative_predictiveness": (distances / norms).max(-1).mean(-1),
        "beta_smoothness": (distances / norms / np.array([0.01, 0.02, 0.05, 0.1, 0.2])).max(-1).mean(-1),
        "rate_band": (rates["losses"].max(1) - rates["losses"].min(1)).mean(-1),
        "surface_rise": np.mean([plane[:, i, j] for i, j in ring], 0) - plane[:, 2, 2],
        "eigenvalue": sharp["eigenvalues"].max(-1),
        "relative_eigenvalue": sharp["relative_eigenvalues"].max(-1),
        "worst_rise": sharp["worst_loss"] - sharp["loss"],
        "test_accuracy": test,
        "gap": train - test,
    }


def modified(folder):
    """When each npz was written."""
    return {file.name: file.stat().st_mtime_ns for file in folder.glob("*.npz")}


def test_the_whole_study_and_again(tmp_path, capsys, monkeypatch, ends):  # noqa: F811
    run = ["--config", "configs/landscape_quick.py", "--workdir", str(tmp_path), *flags(TINY)]
    numbers = study.numbers

    def numbers_while_held(*given):
        with pytest.raises(UserError, match="another process"), lock(tmp_path):
            pass
        return numbers(*given)

    monkeypatch.setattr(study, "numbers", numbers_while_held)
    landscape.main(run)
    rows = json.loads((tmp_path / "verdict.json").read_text())["rows"]
    assert [row["measure"] for row in rows] == [m.name for m in verdict.MEASURES]
    assert all(len(row["without_bn"]) == len(row["with_bn"]) == 2 for row in rows)
    for name, column in (("plain", "without_bn"), ("bn", "with_bn")):
        expected = expected_numbers(tmp_path, name)
        for measure, row in zip(verdict.MEASURES, rows):
            if measure.key != "negative_curvature":  # tested with the surface
                np.testing.assert_allclose(row[column], expected[measure.key], rtol=1e-4, err_msg=measure.key)
    pictures = sorted(p.name for p in tmp_path.glob("*.png"))
    assert len(pictures) == 10 and all((tmp_path / p).stat().st_size > 3000 for p in pictures)
    with np.load(tmp_path / "probes_bn.npz") as probes:
        assert probes["step"].tolist() == [0, 3, 6] and probes["losses"].shape == (2, 3, 5)
    with np.load(tmp_path / "surfaces_plain.npz") as area, np.load(tmp_path / "sharp_plain.npz") as sharp:
        assert area["plane"].shape == (2, 5, 5, 2)
        np.testing.assert_allclose(area["plane"][:, 2, 2, 0], sharp["loss"], rtol=1e-5)
        np.testing.assert_allclose(area["plane"][:, :, 2], area["line"], rtol=1e-5)
        assert (sharp["worst_loss"] > sharp["loss"]).all()
    text = (tmp_path / "verdict.md").read_text()
    before = modified(tmp_path)
    capsys.readouterr()
    monkeypatch.setattr(Figure, "savefig", touch)
    landscape.main(run)
    assert (tmp_path / "verdict.md").read_text() == text and modified(tmp_path) == before
    ends(landscape.main, [*run, "--config.landscape.images=16"], "another config", "landscape.images")
    seeds = [tmp_path / "plain" / f"seed{i}" for i in (0, 1)]
    untouched = (seeds[0] / "metrics.jsonl").stat().st_mtime_ns
    shutil.rmtree(seeds[1] / "latest")  # only this seed is trained again
    landscape.main(run)
    assert (seeds[0] / "metrics.jsonl").stat().st_mtime_ns == untouched and not (seeds[0] / "damaged").exists()
    assert (seeds[1] / "latest").exists() and len(list((seeds[1] / "damaged").iterdir())) == 4
    assert modified(tmp_path) == before  # on a CPU to the same bits
    a_seed_trained_again(run, tmp_path, monkeypatch, capsys)


def a_seed_trained_again(run, folder, monkeypatch, capsys):
    """To other weights, as a GPU does: what was measured of them is measured again, and nothing else."""
    load_model, before, old = study.load_model, modified(folder), dict(np.load(folder / "surfaces_plain.npz"))

    def other(workdir, *given):
        step, model, variables = load_model(workdir, *given)
        again = (workdir.parent.name, workdir.name) == ("plain", "seed1")
        return step, model, jax.tree.map(lambda w: w * 1.1, variables) if again else variables

    monkeypatch.setattr(study, "load_model", other)
    without = dict(np.load(folder / "pixels_bn.npz"))
    del without[kept._OF]
    np.savez(folder / "pixels_bn.npz", **without)  # as earlier versions wrote it
    capsys.readouterr()
    landscape.main(run)
    out = capsys.readouterr().out
    changed = {name for name, when in modified(folder).items() if when != before[name]}
    stages = {f"{stage}_plain.npz" for stage in ("probes", "surfaces", "sharp")}
    seeds = {f"{stage}_plain_seed1.npz" for stage in ("surface_1d", "surface_2d", "sharp")}
    assert changed == stages | seeds | {"pixels_bn.npz"}
    assert f"{folder / 'sharp_plain.npz'} was measured with other weights of seed1; measuring again" in out
    assert f"{folder / 'pixels_bn.npz'} does not say which network it was measured of; measuring again" in out
    with np.load(folder / "surfaces_plain.npz") as area, np.load(folder / "sharp_plain.npz") as sharp:
        np.testing.assert_allclose(area["plane"][:, 2, 2, 0], sharp["loss"], rtol=1e-5)
        np.testing.assert_array_equal(area["plane"][0], old["plane"][0])
        assert area["plane"][1, 2, 2, 0] != old["plane"][1, 2, 2, 0]


def test_a_study_of_a_network_of_ones_own(tmp_path, ends):  # noqa: F811
    mine, workdir = tmp_path / "mine.py", tmp_path / "run"
    mine.write_text(OWN_NETWORK)
    run = ["--config", str(mine), "--workdir", str(workdir), *flags(TINY), "--config.landscape.seeds=1"]
    ends(landscape.main, [*run, "--config.landscape.surface_statistics=batch"], "is not for a get_model")
    landscape.main(run)
    rows = json.loads((workdir / "verdict.json").read_text())["rows"]
    assert len(rows) == len(verdict.MEASURES) and "own network" in (workdir / "verdict.md").read_text()
    depths = {"plain": 2, "bn": 1}  # two convolutions, one BatchNorm
    for name, depth in depths.items():
        with np.load(workdir / f"probes_{name}.npz") as probes:
            assert probes["activation_std"].shape[-1] == depth
        with np.load(workdir / f"pixels_{name}.npz") as pixels:
            assert pixels["filters"].shape == (4, 3, 3, 3) and pixels["saliency"].shape[1:] == (32, 32)
    mine.write_text(OWN_NETWORK.replace('config.model.batch_norm != "none"', "True"))
    ends(landscape.main, [*run, "--workdir", str(tmp_path / "b")], "batch_norm='none' get_model gives one with it")


@pytest.mark.parametrize("field", ["model.whitening=2", "optimizer.name=muon"])
def test_what_the_study_cannot_measure_is_refused(field, tmp_path, ends):  # noqa: F811
    run = ["--config", "configs/landscape_quick.py", "--workdir", str(tmp_path / "run"), f"--config.{field}"]
    ends(landscape.main, run, "error: the study needs config.model.whitening=0 and an optimizer with one learning rate")
    assert not (tmp_path / "run").exists()


def test_networks_differ_in_batch_norm_alone():
    base = config("landscape", {})
    flat = [configs.flatten(study.base_config(base, place)) for place in study.NETWORKS.values()]
    assert {k for k in flat[0] if flat[0][k] != flat[1][k]} == {"model.batch_norm"}
    assert not any(k.startswith("landscape") for k in flat[0])
