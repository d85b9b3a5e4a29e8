"""Schedules against known values, optimizers against formulas, losses against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from small import config

from vgg_jax.training.optim import is_named, make_loss, make_optimizer, make_schedule

PARAMS = {"conv": {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([0.5])}, "bn": {"scale": jnp.array([2.0])}}
GRADS = jax.tree.map(lambda x: 0.1 * x + 0.3, PARAMS)


def rates(epochs, steps=10, **fields):
    schedule = make_schedule(config(optimizer__learning_rate=0.8, train__epochs=epochs, **fields), steps)
    return np.array([float(schedule(i)) for i in range(epochs * steps)])


def test_step_halves_every_so_many_epochs():
    r = rates(6, schedule__decay_epochs=2)
    np.testing.assert_allclose(r, np.repeat([0.8, 0.4, 0.2], 20))


def test_milestones_drop_at_their_epochs():
    r = rates(5, schedule__name="milestones", schedule__milestones="(1, 4)", schedule__decay_rate=0.1)
    np.testing.assert_allclose(r, np.repeat([0.8, 0.08, 0.008], [10, 30, 10]))


def test_constant_and_warmup():
    r = rates(3, schedule__name="constant", schedule__warmup_epochs=1)
    np.testing.assert_allclose(r, 0.8 * np.minimum(1, np.arange(30) / 10), rtol=1e-6)


@pytest.mark.parametrize("name", ["constant", "cosine"])
def test_a_warmup_that_would_fill_the_run_is_cut_to_half_of_it(name):
    r = rates(2, schedule__name=name, schedule__warmup_epochs=5)
    np.testing.assert_allclose(r[:11], 0.8 * np.arange(11) / 10, rtol=1e-6)
    assert (r[10:] > 0).all()
    np.testing.assert_array_equal(r, rates(2, schedule__name=name, schedule__warmup_epochs=2))


def test_cosine_falls_from_the_peak_to_zero_after_warmup():
    r = rates(10, schedule__name="cosine", schedule__warmup_epochs=2)
    np.testing.assert_allclose(r[:20], 0.8 * np.arange(20) / 20, rtol=1e-5)
    np.testing.assert_allclose(r[20:], 0.4 * (1 + np.cos(np.pi * np.arange(80) / 80)), atol=1e-6)


def test_one_cycle_peaks_where_it_says():
    falling = rates(10, schedule__name="one_cycle", schedule__peak=0)
    assert falling[0] == pytest.approx(0.8) and (np.diff(falling) < 0).all()
    r = rates(10, schedule__name="one_cycle", schedule__peak=0.3)
    assert r.argmax() == 30
    np.testing.assert_allclose(r.max(), 0.8, rtol=1e-6)
    assert r[0] < 0.1 and r[-1] < 0.01


def run(steps=3, **fields):
    """PARAMS after some steps of a config's optimizer on constant gradients."""
    c = config(schedule__name="constant", optimizer__learning_rate=0.1, **fields)
    optimizer = make_optimizer(c, make_schedule(c, 10))
    params, state = PARAMS, optimizer.init(PARAMS)
    for _ in range(steps):
        updates, state = optimizer.update(GRADS, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params


@pytest.mark.parametrize("name", ["sgd", "sgdw"])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", ["all", "kernels"])
def test_sgd_is_pytorchs_and_sgdw_decays_apart_from_the_gradient(name, nesterov, decay):
    """b = m b + (g + wd w); w -= lr (g + wd w + m b) with Nesterov, else lr b."""
    fields = {"optimizer__name": name, "optimizer__nesterov": nesterov, "optimizer__decay": decay}
    params = run(optimizer__weight_decay=0.05, **fields)
    for group, leaves in PARAMS.items():
        for leaf_name, leaf in leaves.items():
            w, g, b = np.asarray(leaf), np.asarray(GRADS[group][leaf_name]), 0.0
            wd = 0.05 if decay == "all" or leaf_name == "kernel" else 0.0
            for _ in range(3):
                d = g + (wd * w if name == "sgd" else 0)
                b = 0.9 * b + d
                step = d + 0.9 * b if nesterov else b
                w = w - 0.1 * (step + (wd * w if name == "sgdw" else 0))
            np.testing.assert_allclose(params[group][leaf_name], w, rtol=1e-5)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_couples_weight_decay_and_adamw_does_not(name):
    params = run(optimizer__name=name, optimizer__weight_decay=0.05)
    for group, leaves in PARAMS.items():
        for leaf_name, leaf in leaves.items():
            w, g, m, v = np.asarray(leaf), np.asarray(GRADS[group][leaf_name]), 0.0, 0.0
            for t in range(1, 4):
                d = g + (0.05 * w if name == "adam" else 0)
                m, v = 0.9 * m + 0.1 * d, 0.999 * v + 0.001 * d * d
                update = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
                w = w - 0.1 * (update + (0.05 * w if name == "adamw" else 0))
            np.testing.assert_allclose(params[group][leaf_name], w, rtol=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_losses_against_numpy(smoothing):
    logits, labels = jax.random.normal(jax.random.key(0), (5, 4)), jnp.array([0, 3, 1, 1, 2])
    targets = (1 - smoothing) * np.eye(4)[labels] + smoothing / 4
    log_probability = np.asarray(logits) - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = {
        "cross_entropy": -(targets * log_probability).sum(-1),
        "squared_error": ((np.asarray(logits) - targets) ** 2).mean(-1),
    }
    for name, value in expected.items():
        loss = make_loss(config(loss__name=name, loss__label_smoothing=smoothing))
        np.testing.assert_allclose(loss(logits, labels), value, rtol=1e-5)


def test_triangular_rises_and_falls_in_straight_lines():
    r = rates(10, schedule__name="triangular", schedule__peak=0.2, schedule__start=0.25, schedule__end=0.1)
    np.testing.assert_allclose(r[:20], np.linspace(0.2, 0.8, 21)[:20], rtol=1e-5)
    np.testing.assert_allclose(r[20:], np.linspace(0.8, 0.08, 81)[:80], rtol=1e-5)
    falling = rates(2, schedule__name="triangular", schedule__peak=0.0)
    np.testing.assert_allclose(falling, np.linspace(0.8, 0, 21)[:20], rtol=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_bias_rate_multiplies_the_step_of_biases_alone(name):
    fixed = {"optimizer__name": name, "optimizer__weight_decay": 0}
    one, many = (first_update(config(optimizer__bias_rate=rate, **fixed)) for rate in (1, 64))
    np.testing.assert_allclose(many["conv"]["bias"], 64 * one["conv"]["bias"], rtol=1e-6)
    np.testing.assert_array_equal(many["conv"]["kernel"], one["conv"]["kernel"])
    np.testing.assert_array_equal(many["bn"]["scale"], one["bn"]["scale"])


def first_update(c, params=PARAMS, grads=GRADS):
    optimizer = make_optimizer(c, make_schedule(c, 10))
    return optimizer.update(grads, optimizer.init(params), params)[0]


def test_a_kernel_of_zeros_stays_finite_under_muon():
    """As the last convolution of a residual block may start."""
    zeros = {"kernel": jnp.zeros((3, 3, 4, 8))}
    grads = jax.tree.map(jnp.ones_like, zeros)
    (update,) = jax.tree.leaves(first_update(config(optimizer__name="muon"), zeros, grads))
    assert jnp.isfinite(update).all() and update.any()


def test_parameters_have_names_in_boxes_and_lists_too():
    box = nn.Partitioned(jnp.ones(2), (None,))
    tree = {"conv": {"kernel": box, "bias": box}, "kernel": [jnp.ones(2)]}
    assert jax.tree.leaves(is_named("kernel", tree)) == [False, True, True]


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_sam_steps_by_the_gradient_uphill(name):
    """The update is the plain optimizer's with the gradient at w + rho g / |g| (Foret et al. 2021, equations 2, 3)."""

    def gradient(params, _=None):
        return jax.tree.map(lambda w: w**3, params)

    def updates(radius, gradients):
        c = config(optimizer__name=name, optimizer__sam_radius=radius, optimizer__weight_decay=0.01)
        optimizer, params = make_optimizer(c, make_schedule(c, 10)), PARAMS
        state, found = optimizer.init(params), []
        for _ in range(3):
            update, state = optimizer.update(gradients(params), state, params, grad_fn=gradient)
            params = jax.tree.map(jnp.add, params, update)
            found.append(update)
        return found

    def uphill(params):
        g = gradient(params)
        return gradient(jax.tree.map(lambda w, gw: w + 0.3 * gw / optax.tree.norm(g), params, g))

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), updates(0.3, gradient), updates(0, uphill))
    assert not np.allclose(*(updates(r, gradient)[2]["conv"]["kernel"] for r in (0.3, 0)), rtol=1e-5)


def test_sam_survives_a_gradient_of_zero():
    c = config(optimizer__sam_radius=0.3, optimizer__weight_decay=0)
    optimizer, zero = make_optimizer(c, make_schedule(c, 10)), jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = optimizer.update(zero, optimizer.init(PARAMS), PARAMS, grad_fn=lambda *_: zero)
    assert all((np.asarray(update) == 0).all() for update in jax.tree.leaves(updates))


def orthogonal(matrix, steps=3):
    """Newton-Schulz with Jordan's coefficients."""
    x = (matrix / np.linalg.norm(matrix)).T
    for _ in range(steps):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T


def test_muon_against_numpy():
    """Nesterov momentum with bias correction, orthogonalised; every kernel keeps the norm sqrt(outputs).

    Kernels follow the schedule and do not decay; what is no convolution is trained by SGD.
    """
    kernel, *gradients = np.asarray(jax.random.normal(jax.random.key(1), (4, 3, 3, 4, 8)), np.float64)
    muon = {"optimizer__name": "muon", "optimizer__muon_rate": 0.25, "optimizer__muon_momentum": 0.6}
    falling = {"schedule__name": "triangular", "schedule__peak": 0.0, "train__epochs": 1}
    c = config(optimizer__weight_decay=0.05, **falling, **muon)
    optimizer, params = make_optimizer(c, make_schedule(c, 4)), PARAMS | {"conv3": {"kernel": jnp.float32(kernel)}}
    state, w, m = optimizer.init(params), kernel.reshape(36, 8), 0
    for t, (gradient, share) in enumerate(zip(gradients, (1, 0.75, 0.5)), 1):
        grads = GRADS | {"conv3": {"kernel": jnp.float32(gradient)}}
        updates, state = optimizer.update(grads, state, params)
        if t == 1:
            by_sgd = first_update(config(optimizer__weight_decay=0.05, **falling))
            jax.tree.map(np.testing.assert_allclose, {group: updates[group] for group in PARAMS}, by_sgd)
        params, g = jax.tree.map(jnp.add, params, updates), gradient.reshape(36, 8)
        m = 0.6 * m + 0.4 * g
        ahead = orthogonal(0.6 * m / (1 - 0.6 ** (t + 1)) + 0.4 * g / (1 - 0.6**t))
        w = w * np.sqrt(8) / np.linalg.norm(w) - 0.25 * share * ahead
        np.testing.assert_allclose(params["conv3"]["kernel"].reshape(36, 8), w, atol=1e-4)
