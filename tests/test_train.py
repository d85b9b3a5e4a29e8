"""The step is pure, chunk lengths do not change results, and the step works under vmap and pmap."""

import functools
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import config, dataset

from vgg_jax.datasets import batches
from vgg_jax.datasets.batches import epoch_order, make_get_batch, normalise
from vgg_jax.datasets.load import Dataset
from vgg_jax.model.forward import IN_FLIGHT, batch_for, make_forward, predict, views
from vgg_jax.training.resizing import resized
from vgg_jax.training.step import (
    first_images,
    init_state,
    make_gradients,
    make_recipe,
    make_train_chunk,
    make_train_step,
    step_dropout_key,
    training_loss,
)

DATA = dataset(n=64)
ON_DEVICE = {"image": jnp.asarray(DATA.images), "label": jnp.asarray(DATA.labels)}
CONFIG = config(train__batch_size=16, augment__crop=2, model__head_dropout="(0.5, 0.5)")


@functools.cache
def setting():
    recipe = make_recipe(CONFIG, 4, len(DATA))
    return recipe, jax.jit(make_train_chunk(CONFIG, recipe, DATA))


def assert_same(a, b, **tolerance):
    def check(x, y):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_allclose(x, y, **{"rtol": 0, **tolerance})

    jax.tree.map(check, a, b)


def take(tree, i):
    return jax.tree.map(lambda x: np.asarray(x)[i], tree)


def test_chunks_are_only_a_cut():
    recipe, chunk = setting()
    state = init_state(recipe, 0)
    whole = chunk(state, ON_DEVICE, 4)
    for cut in ((1, 3), (2, 1, 1)):
        parts = state
        for n in cut:
            parts = chunk(parts, ON_DEVICE, n)
        assert_same(parts, whole)


def test_a_step_depends_on_seed_step_and_data_alone():
    recipe, chunk = setting()
    state = init_state(recipe, 0)
    once = chunk(state, ON_DEVICE, 2)
    assert_same(once, chunk(state, ON_DEVICE, 2))
    other_seed = chunk(init_state(recipe, 1), ON_DEVICE, 2)
    assert not np.allclose(once.params["logits"]["kernel"], other_seed.params["logits"]["kernel"])
    later = chunk(state.replace(step=state.step + 1), ON_DEVICE, 1)
    assert not np.allclose(chunk(state, ON_DEVICE, 1).params["fc1"]["kernel"], later.params["fc1"]["kernel"])


def test_an_epoch_sees_every_image_once_in_another_order_each_time():
    recipe, _ = setting()
    key = init_state(recipe, 0).key
    first, second = (np.asarray(epoch_order(key, jnp.int32(e), 64)) for e in (0, 1))
    assert sorted(first) == sorted(second) == list(range(64))
    assert not np.array_equal(first, second)


def test_sums_count_loss_and_accuracy_over_examples():
    recipe, chunk = setting()
    state = init_state(recipe, 0)
    total = chunk(state, ON_DEVICE, 4).sums
    step, get_batch = jax.jit(make_train_step(recipe)), jax.jit(make_get_batch(CONFIG, DATA))
    order = epoch_order(state.key, jnp.int32(0), len(DATA))
    losses, correct = [], 0.0
    for _ in range(4):
        state, metrics = step(state, get_batch(state.key, state.step, ON_DEVICE, order))
        losses.append(float(metrics["loss"]))
        correct += 16 * float(metrics["accuracy"])
    assert int(total["count"]) == 64 and int(total["bad_step"]) == -1
    assert abs(int(total["correct"]) - correct) <= 1  # two programs round differently
    assert float(total["loss"]) == pytest.approx(16 * sum(losses), rel=2e-3)


def test_bad_step_is_the_first_that_is_not_finite():
    recipe, chunk = setting()
    state = init_state(recipe, 0)
    state = chunk(state, ON_DEVICE, 2)
    broken = state.replace(params=jax.tree.map(lambda x: x * jnp.nan, state.params))
    assert int(chunk(broken, ON_DEVICE, 2).sums["bad_step"]) == 2


def test_the_batch_of_an_evaluation():
    sizes = {(1, 32): 1, (20, 32): 32, (360, 32): 512, (10_000, 8): 512, (10_000, 64): 128, (10_000, 48): 128}
    sizes |= {(10_000, 512): 2, (10_000, 1024): 1}
    assert {given: batch_for(*given) for given in sizes} == sizes


@pytest.mark.parametrize("small_size", [0, 16])
def test_seeds_under_vmap_are_the_seeds_one_by_one(small_size):
    """With small_size the third step is the first on images of full size."""
    fields = {"augment__small_size": small_size, "model__global_pool": True, "train__epochs": 1} if small_size else {}
    c = config(train__batch_size=16, augment__crop=2, model__head_dropout="(0.5, 0.5)", **fields)
    recipe = make_recipe(c, 4, len(DATA))
    assert recipe.small == ((16, 2) if small_size else (0, 0))
    chunk = make_train_chunk(c, recipe, DATA)
    states = jax.vmap(lambda seed: init_state(recipe, seed))(jnp.arange(2))
    together = jax.jit(jax.vmap(chunk, (0, None, None)))(states, ON_DEVICE, 3)
    for seed in (0, 1):
        alone = jax.jit(chunk)(init_state(recipe, seed), ON_DEVICE, 3)
        assert_same(take(together.params, seed), alone.params, atol=1e-4)


def test_training_fits_a_small_set():
    c = config(train__batch_size=32, optimizer__learning_rate=0.05, schedule__name="constant")
    recipe = make_recipe(c, 4, 64)
    chunk = jax.jit(make_train_chunk(c, recipe, DATA))
    state = init_state(recipe, 0)
    for _ in range(20):
        state = chunk(state, ON_DEVICE, 2)
    forward = make_forward(recipe.model, DATA.mean, DATA.std)
    logits = predict(forward, state.variables, DATA.images, 24)  # 64 is no multiple of 24
    assert logits.shape == (64, 4)
    assert (logits.argmax(-1) == DATA.labels).mean() > 0.95


def test_predict_is_the_same_in_any_batch_size():
    recipe, _ = setting()
    forward = make_forward(recipe.model, DATA.mean, DATA.std)
    variables = init_state(recipe, 0).variables
    reference = predict(forward, variables, DATA.images, 64)
    for size in (5, 100):
        np.testing.assert_allclose(predict(forward, variables, DATA.images, size), reference, atol=1e-4)


@pytest.mark.parametrize(("tta", "passes"), [("none", 1), ("flip", 2), ("flip_shift", 6)])
def test_known_logits_save_a_pass_and_change_nothing(tta, passes):
    recipe, _ = setting()
    forward = Mock(side_effect=make_forward(recipe.model, DATA.mean, DATA.std))
    variables = init_state(recipe, 0).variables
    plain = predict(forward, variables, DATA.images, 64)
    forward.reset_mock()
    whole = predict(forward, variables, DATA.images, 64, tta)
    assert forward.call_count == passes
    np.testing.assert_array_equal(predict(forward, variables, DATA.images, 64, tta, plain), whole)
    assert forward.call_count == 2 * passes - 1
    np.testing.assert_allclose(  # as defined: a weighted sum over the views
        whole, sum(w * predict(forward, variables, view, 64) for w, view in views(DATA.images, tta)), atol=1e-5
    )


def test_normalise_is_mean_zero_and_std_one():
    x = normalise(jnp.asarray(DATA.images), DATA.mean, DATA.std)
    np.testing.assert_allclose(x, (DATA.images / 255 - np.array(DATA.mean)) / np.array(DATA.std), atol=1e-5)


def test_whitening_sees_every_class_of_a_folder():
    """The images of a folder are sorted by class: here the first class is black, the second white."""
    labels = np.repeat(np.arange(2, dtype=np.int32), 1500)
    images = np.broadcast_to(255 * labels[:, None, None, None].astype(np.uint8), (3000, 64, 64, 3))
    folder = Dataset(images, labels, ("a", "b"), (0.5,) * 3, (0.5,) * 3)
    seen = first_images(config("bn", {}, model__whitening=2), folder)
    assert len(seen) == 1250 and abs(seen.mean()) < 0.1
    assert len(first_images(config("bn", {}), folder)) == 1


def test_alternating_flips_show_every_image_both_ways_in_two_epochs():
    c = config(augment__flip="alternate", train__batch_size=16)
    get_batch = make_get_batch(c, DATA)
    key, order = jax.random.key(0), jnp.arange(64)
    epochs = [
        np.concatenate([get_batch(key, 4 * e + i, ON_DEVICE, order)["image"] for i in range(4)]) for e in range(3)
    ]
    plain = np.asarray(normalise(DATA.images, DATA.mean, DATA.std))
    mirrored = [[np.array_equal(a, b[:, ::-1]) for a, b in zip(images, plain)] for images in epochs]
    straight = [[np.array_equal(a, b) for a, b in zip(images, plain)] for images in epochs]
    assert all(m != s for m, s in zip(np.ravel(mirrored), np.ravel(straight)))
    assert mirrored[0] == straight[1] == mirrored[2] and 16 < sum(mirrored[0]) < 48


@pytest.mark.parametrize("name", ["cross_entropy", "squared_error"])
def test_a_mixed_batch_has_the_gradient_of_mixed_targets(name):
    c = config(augment__mixup=1.0, train__batch_size=16, loss__name=name)
    batch = make_get_batch(c, DATA)(jax.random.key(0), jnp.int32(0), ON_DEVICE, jnp.arange(64))
    np.testing.assert_array_equal(batch["other"], np.roll(batch["label"], 1))
    recipe = make_recipe(c, 4, 64)
    state = init_state(recipe, 0)
    share = np.asarray(batch["share"])[:, None]
    targets = share * np.eye(4)[batch["label"]] + (1 - share) * np.eye(4)[batch["other"]]

    def ours(params):
        return training_loss(recipe, params, state.batch_stats, batch, jax.random.key(1))

    def expected(params):
        logits = ours(params)[1][0]
        if name == "squared_error":
            return jnp.mean((logits - targets) ** 2)
        return optax.softmax_cross_entropy(logits, targets).mean()

    assert_same(jax.grad(ours, has_aux=True)(state.params)[0], jax.grad(expected)(state.params), rtol=1e-3, atol=1e-6)
    if name == "cross_entropy":
        np.testing.assert_allclose(ours(state.params)[0], expected(state.params), rtol=1e-5)


def test_sam_leaves_the_running_statistics_to_the_weights_that_are_kept():
    states = []
    for radius in (0, 0.5):
        recipe = make_recipe(config(optimizer__sam_radius=radius), 4, 64)
        states.append(jax.jit(make_train_step(recipe))(init_state(recipe, 0), BATCH)[0])
    assert_same(states[0].batch_stats, states[1].batch_stats, rtol=1e-5, atol=1e-6)
    distances = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), states[0].params, states[1].params)
    assert max(jax.tree.leaves(distances)) > 1e-5


BATCH = {"image": normalise(ON_DEVICE["image"], DATA.mean, DATA.std), "label": ON_DEVICE["label"]}


def test_images_are_small_in_the_first_part_of_a_run():
    fields = {"model__global_pool": True, "train__epochs": 5, "model__batch_norm": "before"}
    plain, small = (make_recipe(config(**fields, augment__small_size=size), 4, 64) for size in (0, 16))
    assert small.small == (16, plain.total_steps // 2) and plain.small == (0, 0)
    state, step, expected = init_state(small, 0), jax.jit(make_train_step(small)), jax.jit(make_train_step(plain))
    scaled = resized(BATCH, 16)
    means = BATCH["image"].reshape(64, 16, 2, 16, 2, 3).mean((2, 4))
    assert np.abs(scaled["image"] - means).mean() < 0.5 * np.abs(means).mean()  # scaled, not cut out
    for begun, batch in ((0, scaled), (small.small[1] - 1, scaled), (small.small[1], BATCH)):
        now = state.replace(step=jnp.int32(begun))
        done, metrics = step(now, BATCH)
        same, its_metrics = expected(now, batch)
        assert_same(done.trained, same.trained, rtol=1e-4, atol=1e-6)
        assert float(metrics["loss"]) == pytest.approx(float(its_metrics["loss"]), rel=1e-5)


def test_micro_batches_are_the_batch_without_batch_norm():
    results = []
    for micro_batch in (0, 16):
        c = config(model__batch_norm="none", train__batch_size=64, train__micro_batch=micro_batch)
        recipe = make_recipe(c, 4, 64)
        results.append(jax.jit(make_train_step(recipe))(init_state(recipe, 0), BATCH))
    (whole, its_metrics), (sliced, metrics) = results
    assert_same(whole.params, sliced.params, rtol=1e-4, atol=1e-6)
    assert np.isclose(metrics["loss"], its_metrics["loss"], rtol=1e-5)


def test_micro_batches_are_the_mean_of_what_each_gives_by_itself():
    """Gradients, running statistics and loss when each micro-batch has its own BatchNorm and dropout."""
    c = config(model__head_dropout="(0.5, 0.5)", train__batch_size=64, train__micro_batch=16)
    recipe, key, each = make_recipe(c, 4, 64), jax.random.key(5), []
    state = init_state(recipe, 0)
    grads, batch_stats, metrics = jax.jit(make_gradients(recipe))(state.params, state.batch_stats, BATCH, key)
    one = jax.jit(jax.value_and_grad(
        lambda *given: training_loss(recipe, given[0], state.batch_stats, *given[1:]), has_aux=True
    ))  # fmt: skip
    for i in range(4):
        part = jax.tree.map(lambda x, i=i: x[16 * i : 16 * i + 16], BATCH)
        (loss, (_, statistics)), gradient = one(state.params, part, jax.random.fold_in(key, i))
        each.append((gradient, statistics, loss))
    expected = jax.tree.map(lambda *xs: sum(xs) / 4, *each)
    assert_same((grads, batch_stats, metrics["loss"]), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("batch_norm", ["before", "none"])
def test_the_average_follows_the_weights_and_is_what_is_evaluated(batch_norm):
    c = config(train__average=0.5, train__batch_size=16, model__batch_norm=batch_norm)
    recipe = make_recipe(c, 4, 64)
    step, get_batch = jax.jit(make_train_step(recipe)), make_get_batch(c, DATA)
    state = init_state(recipe, 0)
    average = optax.ema(0.5, debias=True)
    seen = average.init(state.trained)
    for i in range(3):
        state, _ = step(state, get_batch(state.key, i, ON_DEVICE, jnp.arange(64)))
        expected, seen = average.update(state.trained, seen)
        assert_same(state.variables, expected, rtol=1e-5, atol=1e-6)  # from the first step on: no trace of the start
    assert not np.allclose(state.variables["params"]["conv1_1"]["kernel"], state.params["conv1_1"]["kernel"])


def test_few_batches_are_in_flight_at_once():
    """With more than 32, several CPU devices wait for each other."""
    begun, ready = [], []

    class Logits:
        def __init__(self, images):
            self.images = images
            begun.append(self)

        def block_until_ready(self):
            ready.append(self)

        def __array__(self, dtype=None, copy=None):
            return self.images.reshape(len(self.images), -1)[:, :4]

    def forward(_, images):
        assert len(begun) - len(ready) <= IN_FLIGHT < 32
        return Logits(images)

    np.testing.assert_array_equal(predict(forward, None, DATA.images, 1), DATA.images.reshape(64, -1)[:, :4])
    assert len(begun) == 64


def test_views_of_test_time_augmentation():
    images = DATA.images[:2]
    given = list(views(images, "flip_shift"))
    assert sum(weight for weight, _ in given) == 1 and [w for w, _ in given] == [0.25, 0.25, 0.125, 0.125, 0.125, 0.125]
    np.testing.assert_array_equal(given[1][1], images[:, :, ::-1])
    np.testing.assert_array_equal(given[2][1][:, 1:, 1:], images[:, :-1, :-1])
    np.testing.assert_array_equal(given[4][1][:, :-1, :-1], images[:, 1:, 1:])

    def forward(_, x):
        return x.reshape(len(x), -1)[:, :5].astype(jnp.float32)

    mean = (forward(None, images) + forward(None, images[:, :, ::-1])) / 2
    np.testing.assert_allclose(predict(forward, None, images, 2, "flip"), mean)


@pytest.mark.parametrize("constant", ["border", "colour", "picture"])
def test_an_epsilon_of_1e_12_is_safe_where_a_part_of_the_pictures_is_constant(constant):
    """Flax's variance E[x^2] - E[x]^2 cancels to 0 below a deviation of about 3e-4 means. No channel comes near."""
    fields = {"model.width": "0.0625", "optimizer.name": "sgd", "train.batch_size": "64", "train.micro_batch": "0"}
    c = config("speedrun", fields, train__epochs=1)
    images = np.random.default_rng(0).normal(size=(64, 32, 32, 3)).astype(np.float32)
    if constant == "border":
        images[:, :12] = images[:, 20:] = images[:, :, :12] = images[:, :, 20:] = 0.7
    elif constant == "colour":
        images[..., 2] = 0.7
    else:
        images[:] = images[:, :1, :1]
    recipe = make_recipe(c, 4, 640)
    state, step = init_state(recipe, 0, images), jax.jit(make_train_step(recipe))
    losses = []
    for _ in range(8):
        state, metrics = step(state, {"image": images, "label": DATA.labels})
        losses.append(float(metrics["loss"]))
    model = recipe.model.clone(batch_norm_momentum=0.0)  # so that the statistics are those of this batch
    _, found = model.apply(state.trained, images, train=True, mutable=["batch_stats"])
    norms = [s for s in found["batch_stats"].values() if "var" in s]
    assert min(float((jnp.sqrt(s["var"]) / abs(s["mean"])).min()) for s in norms) > 0.01
    assert losses[-1] < losses[0]


PLAIN = normalise(DATA.images, DATA.mean, DATA.std)


def batch_of(**fields):
    c = config(train__batch_size=64, **{"augment__flip": "none"} | fields)
    return make_get_batch(c, DATA)(jax.random.key(0), jnp.int32(3), ON_DEVICE, jnp.arange(64))


@pytest.mark.parametrize(("fields", "zeros"), [
    ({"augment__flip": "random"}, False),
    ({"augment__crop": 4}, True),
    ({"augment__crop": 4, "augment__padding": "reflect"}, False),
    ({"augment__cutout": 8}, True),
])  # fmt: skip
def test_a_batch_is_augmented_as_the_config_says(fields, zeros):
    """No pixel of DATA is the mean colour, so zeros are padding or cutout."""
    images = np.asarray(batch_of(**fields)["image"])
    assert (images != PLAIN).any((1, 2, 3)).sum() > 20 and (images == 0).all(-1).any() == zeros


def test_a_mixed_batch_has_mixed_images():
    batch = batch_of(augment__mixup=1.0)
    share = np.asarray(batch["share"])[:, None, None, None]
    np.testing.assert_allclose(batch["image"], share * PLAIN + (1 - share) * np.roll(PLAIN, 1, 0), atol=1e-5)


def test_what_a_run_draws_is_that_of_earlier_versions():
    """Each stream is its own and stays what it is, so that a run can go on with a newer version."""
    streams = ("INIT", "SHUFFLE", "AUGMENT", "DROPOUT", "MIRROR", "POLICY", "MIX")
    assert [getattr(batches, name) for name in streams] == list(range(7))
    assert epoch_order(jax.random.key(0), jnp.int32(1), 8).tolist() == [6, 1, 2, 4, 3, 7, 5, 0]


def test_every_epoch_of_a_chunk_has_an_order_of_its_own():
    c = config(train__batch_size=16, augment__flip="none", optimizer__learning_rate=0.05)
    recipe = make_recipe(c, 4, 64)
    state = begun = init_state(recipe, 0)
    step, get_batch = jax.jit(make_train_step(recipe)), make_get_batch(c, DATA)
    for i in range(8):
        order = epoch_order(state.key, jnp.int32(i // 4), 64)
        state, _ = step(state, get_batch(state.key, jnp.int32(i), ON_DEVICE, order))
    chunk = jax.jit(make_train_chunk(c, recipe, DATA))
    ours = chunk(chunk(begun, ON_DEVICE, 4), ON_DEVICE, 4)
    np.testing.assert_allclose(ours.params["conv1_1"]["kernel"], state.params["conv1_1"]["kernel"], atol=1e-3)


def test_small_part_is_the_share_of_steps_on_small_images():
    small = {"augment__small_size": 16, "augment__small_part": 0.75, "model__global_pool": True}
    assert make_recipe(config(train__epochs=4, train__batch_size=16, **small), 4, 64).small == (16, 12)


def test_every_step_drops_other_units():
    state = init_state(setting()[0], 0)
    keys = [step_dropout_key(state.replace(step=jnp.int32(i))) for i in (0, 1)]
    assert not np.array_equal(*map(jax.random.key_data, keys))


def test_every_step_draws_anew():
    get_batch = make_get_batch(config(train__batch_size=64, augment__flip="random", augment__crop=2), DATA)
    first, second = (get_batch(jax.random.key(0), jnp.int32(i), ON_DEVICE, jnp.arange(64))["image"] for i in (0, 1))
    assert (first != second).any((1, 2, 3)).sum() > 32


def test_the_last_partial_batch_of_an_epoch_is_dropped():
    c = config(train__batch_size=24, train__epochs=3, augment__flip="none")
    recipe = make_recipe(c, 4, 64)
    assert (recipe.steps_per_epoch, recipe.total_steps) == (2, 6)
    third = make_get_batch(c, DATA)(jax.random.key(0), jnp.int32(2), ON_DEVICE, jnp.arange(64))
    np.testing.assert_array_equal(third["label"], DATA.labels[:24])


def test_a_chunk_takes_a_step_of_ones_own():
    c = config(train__batch_size=16)
    recipe = make_recipe(c, 4, 64)

    def still(state, batch):
        return state.replace(step=state.step + 1), {"loss": batch["image"].mean(), "accuracy": jnp.float32(0.5)}

    state = init_state(recipe, 0)
    after = jax.jit(make_train_chunk(c, recipe, DATA, train_step=still))(state, ON_DEVICE, 3)
    assert int(after.step) == 3 and int(after.sums["correct"]) == 24
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)
