"""The measures against closed forms, and the complete study on a small network."""

import functools
import itertools
import json
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from matplotlib.figure import Figure
from small import OWN_NETWORK, SMALL, config, dataset, flags, touch

from vgg_jax.console.errors import UserError
from vgg_jax.datasets.batches import epoch_order, make_get_batch, normalise
from vgg_jax.landscape import (
    __main__ as landscape,
    around,
    band,
    hessian,
    inference,
    kept,
    measures,
    networks,
    probe,
    score as scoring,
    slices,
    snapshots,
    study,
    surface,
    verdict,
)
from vgg_jax.runs.checkpoint import load_model
from vgg_jax.runs.lock import lock
from vgg_jax.runs.log import read
from vgg_jax.settings import config as configs
from vgg_jax.training.step import init_state, make_recipe, make_train_step, step_dropout_key, training_loss

PICTURES = True
SIZES = (0.01, 0.02, 0.05, 0.1)
TINY = SMALL | {
    "data.train_size": "64", "data.validation_size": "0", "train.batch_size": "16", "train.epochs": "2",
    "train.eval_epochs": "1", "landscape.seeds": "2", "landscape.probe_steps": "3", "landscape.images": "32",
    "landscape.surface_points": "5", "landscape.hessian_iterations": "6", "landscape.ascent_steps": "3",
    "landscape.band_epochs": "1", "landscape.directions": "2", "landscape.equal_loss": "2.29",
}  # fmt: skip


TINY_MODEL = {"model.stages": "light", "model.width": "0.25", "model.hidden": "(8,)"}


def quadratic(eigenvalues, seed=0):
    """(L, A, w): L(w) = w A w / 2 with these eigenvalues, in a random basis."""
    n = len(eigenvalues)
    basis, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    matrix = (basis * np.asarray(eigenvalues)) @ basis.T
    w = np.random.default_rng(seed + 1).normal(size=n).astype(np.float32)
    a = jnp.asarray(matrix, jnp.float32)
    return (lambda p: 0.5 * p["w"] @ a @ p["w"]), matrix, {"w": jnp.asarray(w)}


def probed(objective, params):
    found = jax.jit(lambda p: probe.along_gradient(objective, p, jnp.array(SIZES, jnp.float32)))(params)
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


def test_along_several_moves_of_a_quadratic():
    """grad L(w + e m) - g = e A m, whatever the move."""
    objective, a, params = quadratic([0.5, 1.0, 2.0, 7.0])
    move = {"w": jnp.array([1.0, -2.0, 0.5, 3.0])}
    sizes = [jnp.array(SIZES, jnp.float32), jnp.array([0.5, 2.0])]
    here, (down, other) = probe.along(objective, params, lambda g: [jax.tree.map(jnp.negative, g), move], sizes)
    m, g = np.asarray(move["w"]), a @ np.asarray(params["w"])
    np.testing.assert_allclose(other["length"], np.linalg.norm(m), rtol=1e-6)
    np.testing.assert_allclose(other["distances"], np.array([0.5, 2.0]) * np.linalg.norm(a @ m), rtol=1e-4)
    losses = here["loss"] + sizes[1] * (g @ m) + sizes[1] ** 2 * (m @ a @ m) / 2
    np.testing.assert_allclose(other["losses"], losses, rtol=1e-4)
    np.testing.assert_allclose(down["losses"], probed(objective, params)["losses"], rtol=1e-5)


def test_the_update_is_the_step_that_training_makes():
    """At size 1 the probe stands where the next training step goes."""
    c, train = config("vgg_a", TINY_MODEL, train__batch_size="8"), dataset(32)
    recipe, data = make_recipe(c, 4, 32), {"image": train.images, "label": train.labels}
    step, get_batch = jax.jit(make_train_step(recipe)), make_get_batch(c, train)
    state = init_state(recipe, 0)
    measure = probe.make_measure(c, recipe, train, (0.1,), (1.0, 2.0))
    for _ in range(2):  # so that Adam has moments
        order = epoch_order(state.key, jnp.int32(0), 32)
        found = measure(state, data)
        after, metrics = step(state, get_batch(state.key, state.step, data, order))
        np.testing.assert_allclose(found["loss"], metrics["loss"], rtol=1e-5)
        moved = jax.tree.map(jnp.subtract, after.params, state.params)
        assert float(found["update_length"]) == pytest.approx(float(optax.tree.norm(moved)), rel=1e-4)
        batch, key = get_batch(state.key, state.step, data, order), step_dropout_key(state)
        there = training_loss(recipe, after.params, state.batch_stats, batch, key)[0]
        np.testing.assert_allclose(found["update_losses"][0], there, rtol=1e-4)
        gradient = jax.grad(functools.partial(training_loss, recipe), has_aux=True)(
            state.params, state.batch_stats, batch, key
        )[0]
        down = jax.tree.map(lambda w, d: w - 0.1 * d, state.params, gradient)
        there = training_loss(recipe, down, state.batch_stats, batch, key)[0]
        np.testing.assert_allclose(found["losses"][0], there, rtol=1e-4)
        state = after


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


@pytest.mark.parametrize("batch_norm", ["none", "before"])
def test_along_the_gradient_of_a_network(batch_norm):
    score, params, stats = network(batch_norm)
    params = jax.tree.map(lambda w: w / 4, params)  # a short gradient, which steps over no ReLU's kink
    found, at = probed(lambda p: score(p, stats)[0], params), jax.value_and_grad(lambda p: score(p, stats)[0])
    loss, gradient = at(params)
    np.testing.assert_allclose(found["loss"], loss, rtol=1e-4)
    for i, size in enumerate(SIZES):
        there, its = at(jax.tree.map(lambda w, g, e=size: w - e * g, params, gradient))
        np.testing.assert_allclose(found["losses"][i], there, rtol=1e-4)
        distance = optax.tree.norm(jax.tree.map(jnp.subtract, gradient, its))
        np.testing.assert_allclose(found["distances"][i], distance, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("spread", [(-3.0, 0.0, 0.5, 1.0, 2.0, 9.0), (1.0, 2.0, 3.0, 4.0, 50.0)])
def test_lanczos_finds_the_whole_spectrum(spread):
    objective, _, params = quadratic(spread)
    found = hessian.spectra(objective, params, len(spread), jax.random.key(0))[0][0]
    np.testing.assert_allclose(found, sorted(spread), rtol=1e-4, atol=1e-4)


def test_every_ritz_value_is_as_near_to_an_eigenvalue_as_its_residual():
    objective, _, params = quadratic(np.geomspace(1, 100, 30))
    exact = np.geomspace(1, 100, 30)
    near = []
    for iterations in (4, 8, 30):
        values, residuals = (
            np.asarray(x[0]) for x in hessian.spectra(objective, params, iterations, jax.random.key(0))
        )
        distance = np.abs(values[:, None] - exact).min(1)
        assert (distance <= residuals + 1e-3).all()
        near.append(residuals[-1])
    assert near[0] > 10 * near[1] and near[2] < 1e-3 * near[0]


def test_lanczos_stops_when_the_eigenvalues_are_exhausted():
    objective, _, params = quadratic((1.0, 1.0, 1.0, 4.0, 4.0))
    found = np.asarray(hessian.spectra(objective, params, 5, jax.random.key(0))[0][0])
    np.testing.assert_allclose(found, [0, 0, 0, 1, 4], atol=1e-3)


def test_hessian_of_a_network_against_the_full_matrix():
    score, params, stats = network()
    small = {"logits": params["logits"]}

    def objective(p):
        return score(params | p, stats)[0]

    flat, unravel = jax.flatten_util.ravel_pytree(small)
    exact = np.linalg.eigvalsh(jax.hessian(lambda v: objective(unravel(v)))(flat))
    found = hessian.spectra(objective, small, len(flat), jax.random.key(0))[0][0]
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
    found = [hessian.spectra(objective, p, 12, jax.random.key(3))[0][:, -1].tolist() for p in (params, scaled)]
    plain, relative = zip(*found)
    np.testing.assert_allclose(objective(params), objective(scaled), rtol=1e-5)
    assert relative[1] == pytest.approx(relative[0], rel=0.02)
    assert plain[1] != pytest.approx(plain[0], rel=0.5)


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
    points = surface.grid(1.0, 5)
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


def test_rise_on_known_lines():
    bowl = np.array(around.LINE) ** 2
    assert around.rise(np.array([bowl, 3 * bowl]), 0.5) == pytest.approx(2 * 0.25)
    assert around.rise(np.array([bowl, 3 * bowl]), 1.0) == pytest.approx(2)
    assert np.isinf(around.rise(np.array([[1.0, np.inf, 0.0, 1.0, 1.0]]), 0.5))


def test_nonconvexity_of_known_spectra():
    spectra = np.array([[-2.0, 0.0, 8.0], [-0.0005, 1.0, 8.0], [0.5, 1.0, 8.0]])
    assert around.nonconvexity(spectra).tolist() == [0.25, 0, 0]
    assert np.isnan(around.nonconvexity(np.full(3, np.nan)))


def test_the_smallest_and_the_largest_eigenvalue_have_residuals():
    ritz, residuals = np.tile([-1.0, 0.0, 4.0], (2, 2, 1)), np.tile([[9.0, 9.0, 0.4], [0.2, 9.0, 0.1]], (2, 1, 1))
    never = np.full_like(ritz, np.nan)  # came under the equal loss
    arrays = {f"{place}_{key}": x for place in around.PLACES for key, x in (("ritz", ritz), ("residuals", residuals))}
    better = arrays | {"equal_recomputed_ritz": never, "equal_recomputed_residuals": never, "end_stored_ritz": 2 * ritz}
    assert measures.residuals({"plain": better, "bn": arrays}) == pytest.approx((0.05, 0.1))
    assert measures.residuals({"plain": {key: never for key in arrays}}) == (0, 0)


def test_the_path_s_plane_has_its_first_component_first(tmp_path, monkeypatch):
    monkeypatch.setattr(slices, "_evaluate", lambda *given: given[6].reshape(5, 5, 2))
    walked = [SimpleNamespace(step=i, variables={"params": np.array([4.0 - i, i % 2, 0])}) for i in range(5)]
    network = SimpleNamespace(variables=[walked[-1].variables], path=walked)
    found = slices.path(config("landscape_quick", {"landscape.surface_points": "5"}), network, None, tmp_path)
    np.testing.assert_array_equal(found["plane"][..., 0], np.tile(found["axes"][0][:, None], 5))
    np.testing.assert_array_equal(found["plane"][0, :, 1], found["axes"][1])
    assert np.ptp(found["axes"][0]) > np.ptp(found["axes"][1]) > 0


def test_the_band_of_learning_rates_is_that_of_runs_of_their_own():
    """Plain loops of the ordinary step, one per seed and rate, give the losses that the joint program gives."""
    rates, seeds, data = (1e-3, 4e-3), [3, 4], dataset(32)
    shared = {"train__batch_size": "8", "model__stages": "light", "model__width": "0.25", "model__hidden": "(8,)"}
    c = config("vgg_a_bn", {}, **shared)
    found = band.train(c, data, rates, seeds, 2)
    assert found.shape == (2, 2, 8)
    on_device = {"image": jnp.asarray(data.images), "label": jnp.asarray(data.labels)}
    for (s, seed), (i, rate) in itertools.product(enumerate(seeds), enumerate(rates)):
        one = config("vgg_a_bn", {}, optimizer__learning_rate=rate, **shared)
        recipe, get_batch = make_recipe(one, 4, 32), make_get_batch(one, data)
        state, losses, step = init_state(recipe, seed), [], jax.jit(make_train_step(recipe))
        for t in range(8):
            order = epoch_order(state.key, jnp.int32(t // 4), 32)
            state, metrics = step(state, get_batch(state.key, state.step, on_device, order))
            losses.append(metrics["loss"])
        np.testing.assert_allclose(found[s, i], losses, rtol=1e-3, atol=1e-5)


def test_what_is_measured_around_a_bowl():
    """Of |w|^2 / 2 at w = (3, 4, 0, 0): every direction has w's length, and the largest eigenvalue is |w|^2 = 25."""
    given = {"landscape.surface_radius": "0.5", "landscape.ascent_radius": "0.25", "landscape.directions": "2"}
    fields = config("landscape_quick", given | {"landscape.hessian_iterations": "4"}).landscape
    program = around.make_program(lambda p, _: (0.5 * jnp.sum(p["w"] ** 2), 0.0), fields)
    found = program({"w": jnp.array([[3.0], [4.0], [0.0], [0.0]])}, {}, jax.random.key(0))
    assert around.rise(found["lines"], 1.0) == pytest.approx(0.5 * (0.5 * 5) ** 2, rel=1e-4)
    assert not np.allclose(*found["lines"])
    assert found["worst_loss"] == pytest.approx(1.25**2 * 12.5, rel=1e-4)
    assert found["ritz"].max(-1) == pytest.approx([1, 25], rel=1e-3)
    saddle = around.make_program(lambda p, _: (p["w"][0, 0] ** 2 - 0.1 * p["w"][1, 0] ** 2, 0.0), fields)
    found = saddle({"w": jnp.array([[3.0], [4.0], [0.0], [0.0]])}, {}, jax.random.key(0))
    assert around.nonconvexity(found["ritz"]) == pytest.approx([0.1, 0.1], rel=1e-3)


def test_what_the_study_watches_in_training(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(probe, "make_measure", lambda *given: made.append(given) or (lambda *_: {}))
    c, data = config("landscape_quick", TINY_MODEL | {"landscape.images": "8"}), dataset(32)
    base = networks.base_config(c, "before")
    recipe = make_recipe(base, 4, 32)
    state = init_state(recipe, 0)
    found = networks._watching(c, base, recipe, data, tmp_path)(state, {}, tmp_path / "other")
    assert made[0][3:] == (c.landscape.step_sizes, c.landscape.update_sizes)
    score = scoring.make_score(base, recipe.model, networks.other_images(data, 8), "recomputed")
    assert found["choosing_loss"] == pytest.approx(float(score(state.params, state.batch_stats)[0]), rel=1e-4)


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


def test_the_score_forgets_dropout_and_takes_either_kind_of_statistics():
    c, train = config("vgg_a_dropout_bn", TINY_MODEL | {"model.head_dropout": "(0.5, 0.5)"}), dataset(32)
    model = make_recipe(c, 4, 32).model
    assert any(model.head_dropout)
    variables = init_state(make_recipe(c, 4, 32), 0).variables
    stored, recomputed = (scoring.make_score(c, model, train.sample(16), kind) for kind in scoring.STATISTICS)
    plain = model.clone(stage_dropout=(), head_dropout=())
    sample = train.sample(16)
    images = normalise(jnp.asarray(sample.images), train.mean, train.std)

    def expected(logits):
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, sample.labels).mean()
        return loss, (logits.argmax(-1) == sample.labels).mean()

    given = variables["params"], variables["batch_stats"]
    in_training, _ = plain.apply(variables, images, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(stored(*given), expected(plain.apply(variables, images)), rtol=1e-5)
    np.testing.assert_allclose(recomputed(*given), expected(in_training), rtol=1e-5)
    assert abs(stored(*given)[0] - recomputed(*given)[0]) > 1e-3
    settled, again = scoring.settled(model, variables, images), variables
    for _ in range(200):  # 0.9^200 of the first statistics are left
        again = again | {"batch_stats": scoring.in_training(model, again, images)[1]}
    for ours, theirs in zip(*map(jax.tree.leaves, (settled, again))):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def test_the_first_network_under_the_equal_loss_is_kept(tmp_path):
    begun = init_state(make_recipe(config("vgg_a_bn", TINY_MODEL), 4, 16), 0)
    like = begun.variables

    def seen(step, loss):
        state = begun.replace(step=jnp.int32(step), params=jax.tree.map(lambda w: w + step, begun.params))
        snapshots.keep_equal(tmp_path, state, loss, 1.0)
        found = snapshots.read(snapshots.equal_file(tmp_path), like)
        return found and found.step

    assert [seen(*one) for one in ((0, 2.0), (10, 1.5), (20, 0.9), (30, 0.1))] == [None, None, 20, 20]
    assert seen(20, 0.9) == 20 and seen(30, 0.2) == 20  # resumed from step 20
    found = snapshots.read(snapshots.equal_file(tmp_path), like)
    assert found.loss == 0.9
    for kept_leaf, leaf in zip(*map(jax.tree.leaves, (found.variables["params"], begun.params))):
        np.testing.assert_allclose(kept_leaf, leaf + 20, rtol=1e-6)
    whole = snapshots.equal_file(tmp_path).read_bytes()
    assert seen(10, 1.5) is None  # a kill undid step 20, and the run comes under the loss later
    for damaged in (whole[: len(whole) // 2], b"", b"rubbish"):
        snapshots.equal_file(tmp_path).write_bytes(damaged)
        with pytest.raises(UserError, match=r"equal_loss\.npz is damaged; delete the directory of its run"):
            snapshots.read(snapshots.equal_file(tmp_path), like)
    assert seen(0, 2.0) is None  # begun again: what an earlier beginning left does not count


def test_a_longer_path_has_snapshots_of_the_shorter_one():
    steps = {total: snapshots.path_steps(total, 13) for total in (156, 312, 624, 5000)}
    assert steps[156] == 13 and all(total // every <= 16 for total, every in steps.items())
    assert all(large % small == 0 for small, large in itertools.pairwise(steps.values()))


def test_an_effect_is_that_of_a_paired_t_test():
    values = np.random.default_rng(0).normal(0.5, 1, 6).tolist()
    found, expected = inference.effect(values), scipy.stats.ttest_1samp(values, 0)
    interval = expected.confidence_interval(0.95)
    np.testing.assert_allclose([found.mean, found.low, found.high], [np.mean(values), interval.low, interval.high])
    assert found.p == pytest.approx(expected.pvalue)
    assert (inference.effect([0.0, 0.0]).p, inference.effect([1.0, 1.0]).p, inference.effect([1.0]).p) == (1, 0.5, 1)
    alike = inference.effect([-0.125, -0.125])  # no variance is no certainty
    assert inference.sign(alike) == 0 and inference.sign(inference.effect([-0.125] * 6)) == -1
    assert inference.effect([1.0] * 3 + [0.0]).sign_p == 0.25  # a tie does not count
    assert [inference.sign(inference.effect(x)) for x in ([1.0, 1.1], [-1.0, -1.1], [1.0, -0.9], [1.0])] == [
        1,
        -1,
        0,
        0,
    ]
    assert [inference.sign(inference.effect(x)) for x in ([np.inf] * 6, [-np.inf] * 6, [np.inf] * 5, [])] == [
        1,
        -1,
        0,
        0,
    ]


def test_one_probe_without_a_number_does_not_take_a_seeds_median():
    losses = np.array([[[1.0, 3.0], [1.0, np.nan], [2.0, 6.0]]])
    distances, norms = np.array([[[1.0, 2.0]] * 3]), np.array([[1.0, np.nan, 4.0]])
    found = measures._along("", {"losses": losses, "distances": distances, "gradient_norm": norms}, norms, [0.5, 1.0])
    assert {key: value.tolist() for key, value in found.items()} == {
        "loss_band": [4.0], "predictiveness": [2.0], "relative_predictiveness": [2.0], "beta_smoothness": [2.0],
    }  # fmt: skip


def test_probes_at_a_learning_rate_of_0_are_left_out():
    losses = np.array([[[1.0, 1.0], [1.0, 3.0], [1.0, 1.0]]])
    distances, norms = np.array([[[0.0, 0.0], [1.0, 2.0], [0.0, 0.0]]]), np.array([[1.0, 1.0, 1.0]])
    probed = {"update_losses": losses, "update_distances": distances, "gradient_norm": norms}
    found = measures._along("update_", probed, np.array([[0.0, 4.0, 0.0]]), [0.5, 1.0])
    assert {key: value.tolist() for key, value in found.items()} == {
        "update_loss_band": [2.0], "update_predictiveness": [2.0], "update_relative_predictiveness": [2.0],
        "update_beta_smoothness": [0.5],
    }  # fmt: skip
    still = measures._along("update_", probed, np.zeros((1, 3)), [0.5, 1.0])
    assert all(np.isnan(value).all() for value in still.values())


def test_holm_counts_only_what_was_measured():
    numbers = {name: {m.key: values for m in measures.MEASURES} for name, values in (
        ("plain", [2.0, 3.0, 4.0]), ("bn", [1.0, 1.5, 2.2]),
    )}  # fmt: skip
    for both in numbers.values():
        both |= {m.key: [np.nan] * 3 for m in measures.MEASURES if m.where == measures.WHERE["equal_recomputed"]}
    rows = verdict.judge(numbers)
    taken = [row for row in rows if row["effects"]]
    assert len(taken) == len(rows) - 7 and min(row["p_holm"] for row in taken) == pytest.approx(
        len(taken) * min(row["p"] for row in taken)
    )
    assert {row["p_holm"] for row in rows if not row["effects"]} == {1.0}
    assert f"about {0.05 * len(taken):.1f} of these {len(taken)} measures" in verdict.summary(rows)


def test_holm_against_a_worked_example():
    assert inference.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert inference.holm([0.6, 0.9]) == [1.0, 1.0] and inference.holm([]) == []


def test_the_images_that_choose_are_not_those_measured():
    data = dataset(20)
    measured, choosing = data.sample(8).images, networks.other_images(data, 8).images
    assert len(choosing) == 8
    assert not {x.tobytes() for x in measured} & {x.tobytes() for x in choosing}


def judged(without, having):
    """The rows of two measures, a ratio and a share that should grow, of the same numbers."""
    keys = [m.key for m in measures.MEASURES]
    rows = verdict.judge({"plain": dict.fromkeys(keys, without), "bn": dict.fromkeys(keys, having)})
    by_key = dict(zip(keys, rows))
    return by_key["beta_smoothness"], by_key["test_accuracy"]


def test_the_verdict_can_fall_either_way():
    ratio, share = judged([2.0, 3.0, 4.0], [1.0, 1.5, 2.2])
    assert (ratio["holds"], share["holds"]) == ("yes", "no")
    assert ratio["effect"] == pytest.approx((0.5 * 0.5 * 0.55) ** (1 / 3)) and share["effect"] == pytest.approx(
        -4.3 / 3
    )
    assert ratio["interval"][0] < ratio["effect"] < ratio["interval"][1] < 1
    other, larger = judged([1.0, 1.5, 2.2], [2.0, 3.0, 4.0])
    assert (other["holds"], larger["holds"]) == ("no", "yes") and other["effect"] == pytest.approx(1 / ratio["effect"])
    assert (ratio["seeds_for"], other["seeds_for"], larger["seeds_for"]) == (3, 0, 3)
    for undecided in (([2.0, 3.0], [1.0, 9.0]), ([2.0, 3.0], [2.0, 3.0]), ([2.0], [1.0]), ([np.nan] * 3, [1.0] * 3)):
        assert [row["holds"] for row in judged(*undecided)] == ["open", "open"]
    diverged, _ = judged([np.inf] * 6, [1.0] * 6)
    assert diverged["holds"] == "yes" and np.isnan(diverged["effect"]) and verdict.effect(diverged) == "no number"
    assert judged([np.inf] * 5, [1.0] * 5)[0]["holds"] == "open"  # five of five may be chance
    both, _ = judged([np.inf, *[3.0] * 5], [np.inf, *[1.0] * 5])  # a tie without a size, not a measured ratio of 1
    assert np.isnan(both["effect"]) and (both["seeds_for"], both["seeds"]) == (5, 5)
    below, _ = judged([0.5] * 6, [-0.1] * 6)  # a fall has no ratio to a rise
    assert below["holds"] == "yes" and np.isnan(below["effect"])
    some, _ = judged([2.0, np.nan, 3.0, 4.0], [1.0, 1.0, 1.5, 2.2])
    assert some["seeds"] == 3 and some["effect"] == ratio["effect"]


def test_the_verdict_in_words():
    keys = [m.key for m in measures.MEASURES]
    numbers = {"plain": [2.0, 3.0, 4.0], "bn": [1.0, 1.5, 2.2]}
    rows = verdict.judge({name: {key: values for key in keys} for name, values in numbers.items()})
    text = verdict.markdown(rows, "note")
    assert "3 ± 1" in text and "x 0.516 (" in text and "| 3 of 3 (0.25) |" in text and " yes |" in text
    assert "- BatchNorm and better generalisation: 1 for it, 2 against, 0 open." in text
    assert (
        "fewer sharp minima: 10 for it, 0 against, 0 open; with stored statistics 5 for it, 0 against, 0 open" in text
    )
    assert f"about {0.05 * len(rows):.1f} of these {len(rows)} measures" in text
    assert f"chance; {sum(row['p_holm'] < 0.05 for row in rows)} of them stand" in text
    assert json.dumps(verdict.plain_json({"x": [float("inf"), 1.0]}), allow_nan=False) == '{"x": ["inf", 1.0]}'


def expected_numbers(folder, name):
    """Most of the verdict's numbers of a network, by key, computed only from the study's files."""
    probes, rates, near, equal = (np.load(folder / f"{s}_{name}.npz") for s in ("probes", "rates", "around", "equal"))
    losses, distances, norms = probes["losses"], probes["distances"], probes["gradient_norm"][..., None]
    turned, length = probes["update_distances"], probes["update_length"][..., None]
    runs = [folder / name / f"seed{seed}" for seed in (0, 1)]
    test = np.array([read(run)[-1]["test_accuracy"] for run in runs])
    train = np.array([json.loads((run / "summary.json").read_text())["train_accuracy"] for run in runs])
    median = functools.partial(np.median, axis=-1)
    found = {
        "loss_band": median(losses.max(-1) - losses.min(-1)),
        "predictiveness": median(distances.max(-1)),
        "relative_predictiveness": median((distances / norms).max(-1)),
        "beta_smoothness": median((distances / norms / np.array([0.01, 0.05, 0.2])).max(-1)),
        "update_loss_band": median(probes["update_losses"].max(-1) - probes["update_losses"].min(-1)),
        "update_relative_predictiveness": median((turned / norms).max(-1)),
        "update_beta_smoothness": median((turned / length / np.array([0.5, 2, 8])).max(-1)),
        "rate_band": (rates["losses"].max(1) - rates["losses"].min(1)).mean(-1),
        "test_accuracy": test,
        "gap": train - test,
        "equal_test_accuracy": equal["test_accuracy"],
    }
    for place in around.PLACES:
        lines = near[f"{place}_lines"]
        found |= {
            f"{place}_rise": (lines[..., 1] + lines[..., 3]).mean(-1) / 2 - lines[..., 2].mean(-1),
            f"{place}_far_rise": (lines[..., 0] + lines[..., 4]).mean(-1) / 2 - lines[..., 2].mean(-1),
            f"{place}_eigenvalue": near[f"{place}_ritz"][:, 0, -1],
            f"{place}_relative_eigenvalue": near[f"{place}_ritz"][:, 1, -1],
            f"{place}_nonconvexity": np.maximum(0, -near[f"{place}_ritz"][:, 1, 0] / near[f"{place}_ritz"][:, 1, -1]),
            f"{place}_worst_rise": near[f"{place}_worst_loss"] - near[f"{place}_loss"],
        }
    return found


def modified(folder):
    """When each npz was written."""
    return {file.name: file.stat().st_mtime_ns for file in folder.glob("*.npz")}


def test_the_whole_study_and_again(tmp_path, capsys, monkeypatch, ends):
    run = ["--config", "configs/landscape_quick.py", "--workdir", str(tmp_path), *flags(TINY)]
    numbers = measures.numbers

    def numbers_while_held(*given):
        with pytest.raises(UserError, match="another process"), lock(tmp_path):
            pass
        return numbers(*given)

    monkeypatch.setattr(measures, "numbers", numbers_while_held)
    landscape.main(run)
    rows = json.loads((tmp_path / "verdict.json").read_text())["rows"]
    assert [row["measure"] for row in rows] == [m.name for m in measures.MEASURES]
    for name, column in (("plain", "without_bn"), ("bn", "with_bn")):
        expected = expected_numbers(tmp_path, name)
        for measure, row in zip(measures.MEASURES, rows):
            values = [float(value) for value in row[column]]
            np.testing.assert_allclose(values, expected[measure.key], rtol=1e-4, err_msg=measure.key)
    pictures = sorted(p.name for p in tmp_path.glob("*.png"))
    assert len(pictures) == 11 and all((tmp_path / p).stat().st_size > 3000 for p in pictures)
    what_the_files_hold(tmp_path)
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


def what_the_files_hold(folder):
    with np.load(folder / "probes_bn.npz") as probes:
        assert probes["step"].tolist() == [0, 3, 6] and probes["losses"].shape == (2, 3, 3)
    with np.load(folder / "around_bn.npz") as near, np.load(folder / "planes_bn.npz") as area:
        assert near["end_stored_lines"].shape == (2, 2, 5) and area["plane"].shape == (2, 5, 5, 2)
        for kind, plane in zip(scoring.STATISTICS, area["plane"]):
            np.testing.assert_allclose(plane[2, 2, 0], near[f"end_{kind}_loss"][0], rtol=1e-5)
        assert not np.allclose(near["end_stored_ritz"], near["end_recomputed_ritz"])
        assert (near["end_stored_worst_loss"] > near["end_stored_loss"]).all()
        end = near["end_recomputed_loss"][0]
    with np.load(folder / "around_plain.npz") as near, np.load(folder / "equal_plain.npz") as equal:
        np.testing.assert_array_equal(near["end_stored_ritz"], near["end_recomputed_ritz"])
        assert (equal["loss"] <= 2.29).all() and (near["equal_recomputed_loss"] != equal["loss"]).all()
    with np.load(folder / "path_bn.npz") as path:
        assert path["steps"].tolist() == [0, 3, 6, 8] and path["plane"].shape == (5, 5, 2)
        np.testing.assert_allclose(path["walked"][-1], 0, atol=1e-6)  # it ends in the network itself
        assert path["share"].sum() <= 1.0001 and (path["axes"][:, 0] < path["walked"].min(0)).all()
        workdir, c = folder / "bn" / "seed0", configs.from_json((folder / "bn" / "seed0" / "config.json").read_text())
        _, variables = load_model(workdir, "latest", c, 10)
        start = snapshots.read_path(workdir, variables)[0].variables["params"]
        away = optax.tree.norm(jax.tree.map(jnp.subtract, start, variables["params"]))
        assert np.linalg.norm(path["walked"][0]) <= float(away) * 1.0001
        assert path["plane"][..., 0].min() <= 1.2 * end


def a_seed_trained_again(run, folder, monkeypatch, capsys):
    """To other weights, as a GPU does: what was measured of them is measured again, and nothing else."""
    load_model, before, old = networks.load_model, modified(folder), dict(np.load(folder / "around_plain.npz"))

    def other(workdir, *given):
        step, variables = load_model(workdir, *given)
        again = (workdir.parent.name, workdir.name) == ("plain", "seed1")
        return step, jax.tree.map(lambda w: w * 1.1, variables) if again else variables

    monkeypatch.setattr(networks, "load_model", other)
    without = dict(np.load(folder / "pixels_bn.npz"))
    del without[kept._OF]
    np.savez(folder / "pixels_bn.npz", **without)  # as earlier versions wrote it
    older, fields = dict(np.load(folder / "around_bn.npz")), {"model.tied", "model.bias_init", "model.spatial_dropout"}
    of = json.loads(str(older[kept._OF]))
    older[kept._OF] = json.dumps({name: value for name, value in of.items() if name not in fields})
    assert "model.tied" in of
    np.savez(folder / "around_bn.npz", **older)  # of a version without these fields, which serves as it is
    before = modified(folder)
    capsys.readouterr()
    landscape.main(run)
    out = capsys.readouterr().out
    changed = {name for name, when in modified(folder).items() if when != before[name]}
    stages = {f"{stage}_plain.npz" for stage in ("probes", "equal", "around")}
    seeds = {f"around_plain_{moment}_stored_seed1.npz" for moment in ("end", "equal")}
    assert changed == stages | seeds | {"pixels_bn.npz"}
    assert f"{folder / 'around_plain.npz'} was measured with other weights of seed1; measuring again" in out
    assert f"{folder / 'pixels_bn.npz'} does not say which network it was measured of; measuring again" in out
    with np.load(folder / "around_plain.npz") as near:
        np.testing.assert_array_equal(near["end_stored_lines"][0], old["end_stored_lines"][0])
        assert near["end_stored_loss"][1] != old["end_stored_loss"][1]


def test_a_study_of_a_network_of_ones_own(tmp_path, ends):
    mine, workdir = tmp_path / "mine.py", tmp_path / "run"
    mine.write_text(OWN_NETWORK)
    run = ["--config", str(mine), "--workdir", str(workdir), *flags(TINY), "--config.landscape.seeds=1"]
    landscape.main([*run, "--config.landscape.equal_loss=0"])
    rows = json.loads((workdir / "verdict.json").read_text())["rows"]
    assert len(rows) == len(measures.MEASURES) and "own network" in (workdir / "verdict.md").read_text()
    assert {row["holds"] for row in rows} == {"open"}  # one seed shows nothing
    assert {tuple(row["with_bn"]) for row in rows if "equal loss" in row["where"]} == {("nan",)}
    depths = {"plain": 2, "bn": 1}  # two convolutions, one BatchNorm
    for name, depth in depths.items():
        with np.load(workdir / f"probes_{name}.npz") as probes:
            assert probes["activation_std"].shape[-1] == depth
        with np.load(workdir / f"pixels_{name}.npz") as pixels:
            assert pixels["filters"].shape == (4, 3, 3, 3) and pixels["saliency"].shape[1:] == (32, 32)
    mine.write_text(OWN_NETWORK.replace('config.model.batch_norm != "none"', "True"))
    ends(landscape.main, [*run, "--workdir", str(tmp_path / "b")], "batch_norm='none' get_model gives one with it")


@pytest.mark.parametrize(("fields", "needs"), [
    (["model.whitening=2"], "model.whitening=0"), (["optimizer.name=muon"], "another optimizer than muon"),
    (["augment.small_size=16", "model.global_pool=True", "model.stages=light"], "augment.small_size=0"),
    (["train.micro_batch=64"], "train.micro_batch=0"), (["train.average=0.9"], "train.average=0"),
    (["model.dtype=bfloat16"], "model.dtype=float32"), (["train.start_from=run"], "train.start_from="),
])  # fmt: skip
def test_what_the_study_cannot_measure_is_refused(fields, needs, tmp_path, ends):
    run = ["--config", "configs/landscape_quick.py", "--workdir", str(tmp_path / "run")]
    run += [f"--config.{field}" for field in fields]
    ends(landscape.main, run, f"error: the study cannot measure this rightly; it needs {needs}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("field, words", [
    ("landscape.probe_steps=1000", "probe_steps is more than the 8 training steps"),
    ("landscape.images=33", "images is more than half of the 64 training images"),
    ("train.batch_size=128", "config.train.batch_size=128 is larger than the 64 training images"),
])  # fmt: skip
def test_a_study_that_its_data_are_too_few_for_is_refused(field, words, tmp_path, ends):
    run = ["--config", "configs/landscape_quick.py", "--workdir", str(tmp_path / "run"), *flags(TINY)]
    ends(landscape.main, [*run, f"--config.{field}"], words)
    assert not (tmp_path / "run").exists()


def test_networks_differ_in_batch_norm_alone():
    base = config("landscape", {})
    flat = [configs.flatten(networks.base_config(base, place)) for place in networks.NETWORKS.values()]
    assert {k for k in flat[0] if flat[0][k] != flat[1][k]} == {"model.batch_norm"}
    assert not any(k.startswith("landscape") for k in flat[0])


def test_at_equal_loss_the_snapshot_is_measured_with_its_own_statistics(tmp_path):
    data, test = dataset(32), dataset(64, seed=1)
    few = {"landscape.images": "16", "landscape.seeds": "1", "landscape.directions": "1", "data.name": "digits",
           "landscape.hessian_iterations": "2", "landscape.ascent_steps": "1"}  # fmt: skip
    c = config("landscape_quick", few | TINY_MODEL)
    base = networks.base_config(c, "before")
    recipe = make_recipe(base, 4, 32)
    model, (end, then) = recipe.model, (init_state(recipe, seed).variables for seed in (0, 1))
    kept_then, weights = snapshots.Snapshot(7, 0.4, then), {"weights": "1"}
    both = networks.Network("bn", base, [tmp_path], model, [end], [kept_then], [], {}, [weights])
    chosen, shown = data.sample(16), normalise(test.images, data.mean, data.std)
    settled = scoring.settled(model, then, normalise(jnp.asarray(chosen.images), data.mean, data.std))
    right, stale = (
        float((model.apply(v, shown, train=False).argmax(-1) == test.labels).mean()) for v in (settled, then)
    )
    found = study.equal_loss(c, both, data, test)
    assert right != stale
    assert [float(found[key][0]) for key in ("step", "loss", "test_accuracy")] == pytest.approx([7, 0.4, right])
    near = around.measure(c, both, data, tmp_path)
    places = {"end_stored": (end, "stored"), "end_recomputed": (end, "recomputed"),
              "equal_recomputed": (then, "recomputed")}  # fmt: skip
    for place, (v, kind) in places.items():
        expected = scoring.make_score(base, model, chosen, kind)(v["params"], v["batch_stats"])[0]
        assert float(near[f"{place}_loss"][0]) == pytest.approx(float(expected), rel=1e-4)
    assert len({float(near[f"{place}_loss"][0]) for place in places}) == 3
