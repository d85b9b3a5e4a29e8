"""The table's counts; and every switch changes what it should and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn, traverse_util

from vgg_jax.model.layers import Dropout
from vgg_jax.model.network import count
from vgg_jax.model.vgg import ACTIVATIONS, KERNEL_INITS, VGG
from vgg_jax.settings.stages import STAGES

IMAGES = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
SMALL = {"stages": "light", "width": 0.5, "hidden": (8,)}


def variables(model, images=IMAGES):
    return model.init(jax.random.key(0), images)


def shapes(model):
    tree = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    return {"/".join(path): leaf.shape for path, leaf in traverse_util.flatten_dict(tree).items()}


def shapes_of_params(model):
    return jax.eval_shape(model.init, jax.random.key(0), IMAGES)["params"]


def call_order(model):
    return [row.name for row in count(model)]


@pytest.mark.parametrize(
    ("model", "parameters", "multiply_adds"),
    [
        (VGG(hidden=(512, 512), batch_norm_head=False), 15_253_578, 313_725_952),  # as published for VGG16-BN
        (VGG(), 14_991_946, 313_463_808),  # the default: one hidden layer, BatchNorm after it too
        (VGG(batch_norm="none"), 14_982_474, 313_463_808),
        (VGG(stages="A", hidden=(512, 512), batch_norm="none"), 9_750_922, 153_293_824),
    ],
)
def test_counts(model, parameters, multiply_adds):
    rows = count(model)
    assert sum(row.parameters for row in rows) == parameters
    assert sum(row.multiply_adds for row in rows) == multiply_adds
    assert parameters == sum(np.prod(s) for name, s in shapes(model).items() if name.startswith("params"))


@pytest.mark.parametrize("stages", STAGES)
def test_stages_have_their_convolutions(stages):
    kernels = [s for name, s in shapes(VGG(stages=stages)).items() if "/conv" in name and name.endswith("kernel")]
    assert sorted(s[-1] for s in kernels) == sorted(w for stage in STAGES[stages] for w in stage)
    depth = {"A": 8, "B": 10, "D": 13, "E": 16, "light": 2, "speed": 6}  # convolutions
    assert len(kernels) == depth[stages]


def test_a_layer_without_parameters_of_ones_own_network_is_counted():
    class Own(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return nn.Dense(10)(nn.BatchNorm(not train, use_scale=False, use_bias=False)(x).mean((1, 2)))

    assert [(row.name, row.parameters) for row in count(Own())] == [("BatchNorm_0", 0), ("Dense_0", 40)]


def test_layers_are_named_and_in_order():
    assert call_order(VGG(stages="light", batch_norm="before")) == [
        "conv1_1", "bn1_1", "conv2_1", "bn2_1", "fc1", "bn_fc1", "logits",
    ]  # fmt: skip


def test_width_scales_every_convolution_and_only_those():
    full, half = shapes(VGG(batch_norm="none")), shapes(VGG(batch_norm="none", width=0.5))
    assert full.keys() == half.keys()
    for name in full:
        if "conv" in name:
            assert half[name][-1] * 2 == full[name][-1]
    assert half["params/fc1/kernel"] == (256, 512)
    assert half["params/logits/kernel"] == full["params/logits/kernel"]


def test_num_classes_and_hidden_change_only_the_head():
    base, other = shapes(VGG(**SMALL)), shapes(VGG(**SMALL | {"hidden": (8, 4)}, num_classes=7))
    assert other["params/logits/kernel"] == (4, 7)
    changed = {name for name in base | other if base.get(name) != other.get(name)}
    assert all("fc2" in name or "logits" in name for name in changed)


def test_batch_norm_none_removes_every_one_and_nothing_else():
    on, off = shapes(VGG()), shapes(VGG(batch_norm="none"))
    assert {name for name in on if "/bn" not in name} == off.keys()


def test_batch_norm_head_is_the_one_after_the_hidden_layer():
    on, off = shapes(VGG(**SMALL)), shapes(VGG(**SMALL, batch_norm_head=False))
    assert {name for name in on.keys() - off.keys()} == {name for name in on if "bn_fc1" in name}


def test_batch_norm_before_and_after_are_the_same_layers_in_another_order():
    before, after = VGG(**SMALL, batch_norm="before"), VGG(**SMALL, batch_norm="after")
    assert shapes(before) == shapes(after)
    weights = variables(before)
    a, b = (model.apply(weights, IMAGES, train=True, mutable=["batch_stats"])[1] for model in (before, after))
    mean_before, mean_after = (x["batch_stats"]["bn1_1"]["mean"] for x in (a, b))
    assert not np.allclose(mean_before, mean_after)
    assert (mean_after >= 0).all()  # of the values after a ReLU
    assert (mean_before < 0).any()


def test_training_updates_batch_stats_and_evaluation_uses_them():
    model = VGG(**SMALL)
    weights = variables(model)
    _, updated = model.apply(weights, IMAGES, train=True, mutable=["batch_stats"])
    mean = updated["batch_stats"]["bn1_1"]["mean"]
    assert not np.allclose(mean, 0)
    other = model.apply({"params": weights["params"], **updated}, IMAGES)
    assert not np.allclose(other, model.apply(weights, IMAGES))


def test_batch_norm_epsilon_and_momentum_reach_every_layer():
    weights = variables(VGG(**SMALL))
    for field, value in (("batch_norm_epsilon", 0.5), ("batch_norm_momentum", 0.5)):
        old, new = VGG(**SMALL), VGG(**SMALL, **{field: value})
        stats = [m.apply(weights, IMAGES, train=True, mutable=["batch_stats"])[1]["batch_stats"] for m in (old, new)]
        if field == "batch_norm_momentum":
            for name in stats[0]:  # 0.1 times the batch's mean against 0.5 times
                np.testing.assert_allclose(stats[1][name]["mean"], 5 * stats[0][name]["mean"], rtol=1e-3)
        else:
            assert not np.allclose(old.apply(weights, IMAGES), new.apply(weights, IMAGES))


def dropped_layers(model):
    """Names of the dropout layers that draw random numbers in training."""
    seen = []

    def record(call, args, kwargs, context):
        if type(context.module).__name__ == "Dropout" and context.module.rate and args[1]:
            seen.append(context.module.name)
        return call(*args, **kwargs)

    from flax import linen as nn

    with nn.intercept_methods(record):
        key = jax.random.key(0)
        jax.eval_shape(lambda: model.init({"params": key, "dropout": key}, IMAGES, train=True))
    return seen


def test_stage_dropout_follows_every_convolution_but_the_last_of_its_stage():
    assert dropped_layers(VGG(stage_dropout=(0.3, 0.4, 0.4, 0.4, 0.4))) == [
        "dropout1_1", "dropout2_1", "dropout3_1", "dropout3_2", "dropout4_1", "dropout4_2", "dropout5_1", "dropout5_2",
    ]  # fmt: skip
    assert dropped_layers(VGG(stage_dropout=(0.3,))) == ["dropout1_1"]


def test_head_dropout_is_on_the_input_of_each_dense_layer():
    assert dropped_layers(VGG(head_dropout=(0.5, 0.5))) == ["dropout_fc1", "dropout_logits"]
    assert dropped_layers(VGG(hidden=(8, 8), head_dropout=(0.5, 0.5))) == ["dropout_fc1", "dropout_fc2"]
    assert dropped_layers(VGG()) == []


@pytest.mark.parametrize("where", [{"stage_dropout": (0.5,) * 5}, {"head_dropout": (0.5, 0.5)}])
def test_dropout_changes_training_only_and_no_parameter(where):
    base = {"stages": "B", "width": 1 / 16, "hidden": (8,), "batch_norm": "none"}
    plain, dropping = VGG(**base), VGG(**base, **where)
    weights = variables(plain)
    assert shapes(plain) == shapes(dropping)
    np.testing.assert_array_equal(plain.apply(weights, IMAGES), dropping.apply(weights, IMAGES))
    outputs = [dropping.apply(weights, IMAGES, train=True, rngs={"dropout": jax.random.key(i)}) for i in (0, 0, 1)]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert not np.allclose(outputs[0], outputs[2])


def test_spatial_dropout_drops_whole_maps_and_single_elements_of_the_head():
    layer, x = Dropout(0.5, spatial=True), jnp.ones((64, 8, 8, 10))
    y = np.asarray(layer.apply({}, x, True, rngs={"dropout": jax.random.key(0)}))
    assert (y == y[:, :1, :1]).all() and set(np.unique(y)) == {0.0, 2.0}
    assert abs(y.mean() - 1) < 0.2 and len({row.tobytes() for row in y[:, 0, 0]}) > 60  # a choice for each image
    found = {}

    def record(call, args, kwargs, context):
        if isinstance(context.module, Dropout):
            found[context.module.name] = context.module.spatial
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        variables(
            VGG(stages="B", width=1 / 16, stage_dropout=(0.3,) * 5, head_dropout=(0.5, 0.5), spatial_dropout=True)
        )
    assert found == {f"dropout{s}_1": True for s in range(1, 6)} | {"dropout_fc1": False, "dropout_logits": False}


def test_tied_convolutions_of_one_width_are_one_layer():
    own, tied = shapes(VGG(stages="E", batch_norm="none")), shapes(VGG(stages="E", batch_norm="none", tied=True))
    kernels = {name: shape for name, shape in tied.items() if "conv" in name and name.endswith("kernel")}
    widening = {f"params/conv{s}_1/kernel" for s in (1, 2, 3, 4)}
    assert kernels.keys() == widening | {f"params/conv{width}/kernel" for width in (64, 128, 256, 512)}
    assert all(own[name] == tied[name] for name in widening)
    model = VGG(stages="B", width=1 / 16, hidden=(8,), batch_norm="none", tied=True)
    v = variables(model)
    assert sum(row.parameters for row in count(model)) == sum(leaf.size for leaf in jax.tree.leaves(v["params"]))
    untied = {name: v["params"].get(name, v["params"]["conv32"]) for name in shapes_of_params(model.clone(tied=False))}
    untied |= {f"conv{s}_2": v["params"][f"conv{4 * 2 ** (s - 1)}"] for s in (1, 2, 3)}
    np.testing.assert_array_equal(model.apply(v, IMAGES), model.clone(tied=False).apply({"params": untied}, IMAGES))


def test_activation_reaches_every_block():
    calls = []
    model = VGG(stages="B", width=1 / 16, hidden=(8, 8), residual=True, activation="spy")
    ACTIVATIONS["spy"] = lambda x: calls.append(x.shape) or x
    try:
        jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    finally:
        del ACTIVATIONS["spy"]
    assert len(calls) == 2 * 10 + 2  # two per residual block, one per hidden layer


def test_activations_are_four_functions():
    x = jnp.linspace(-3, 3, 7)
    outputs = [f(x) for f in ACTIVATIONS.values()]
    assert len({np.asarray(y).tobytes() for y in outputs}) == len(ACTIVATIONS)
    np.testing.assert_allclose(ACTIVATIONS["leaky_relu"](jnp.array([-1.0, 2.0])), [-0.1, 2.0], rtol=1e-6)


def test_residual_adds_its_input_in_every_block():
    model = VGG(stages="B", width=1 / 16, hidden=(8,), residual=True)
    names = call_order(model)
    for s in range(1, 6):
        for i in (1, 2):
            assert {f"conv{s}_{i}a", f"conv{s}_{i}b", f"bn{s}_{i}a", f"bn{s}_{i}b"} <= set(names)
    assert [n for n in names if n.startswith("proj")] == ["proj1_1", "proj2_1", "proj3_1", "proj4_1"]  # widths differ
    weights = variables(model)
    zeroed = jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.zeros_like(x) if path[1].key.startswith("conv5") else x, weights
    )
    assert float(jnp.abs(model.apply(zeroed, IMAGES)).max()) > 0
    through = [model.apply(zeroed, images) for images in (IMAGES, -IMAGES)]
    assert not np.allclose(*through)  # stage 5 still passes on its input


@pytest.mark.parametrize(
    ("name", "conv_std", "dense_std"),  # of kernels [3, 3, 64, 128] and [8192, 64]
    [
        ("msr", (2 / (9 * 128)) ** 0.5, 1 / (3 * 8192) ** 0.5),
        ("he_normal", (2 / (9 * 64)) ** 0.5, 1 / (3 * 8192) ** 0.5),
        ("xavier_normal", (2 / (9 * (64 + 128))) ** 0.5, (2 / (8192 + 64)) ** 0.5),
        ("kaiming_leaky", (2 / 1.01 / (9 * 128)) ** 0.5, (2 / 1.01 / 64) ** 0.5),
    ],
)
def test_kernel_init_reaches_convolutions_and_dense_layers(name, conv_std, dense_std):
    assert name in KERNEL_INITS
    params = variables(VGG(stages="light", width=4, hidden=(64,), kernel_init=name))["params"]
    np.testing.assert_allclose(params["conv2_1"]["kernel"].std(), conv_std, rtol=0.02)
    np.testing.assert_allclose(params["fc1"]["kernel"].std(), dense_std, rtol=0.02)
    biases = [leaf for path, leaf in traverse_util.flatten_dict(params).items() if path[-1] == "bias"]
    assert all((bias == 0).all() for bias in biases)


def test_pytorchs_initialisation_of_kernels_and_biases():
    """Both uniform within 1 / sqrt(fan_in); BatchNorm's biases stay at 0."""
    model = VGG(stages="light", width=4, hidden=(64,), kernel_init="pytorch", bias_init="pytorch")
    params = variables(model)["params"]
    for name, fan_in in (("conv2_1", 9 * 64), ("fc1", 8192), ("logits", 64)):
        for leaf in params[name].values():
            assert 0.8 < np.abs(leaf).max() * fan_in**0.5 <= 1 and leaf.min() < 0 < leaf.max()
    np.testing.assert_allclose(params["conv2_1"]["kernel"].std(), (3 * 9 * 64) ** -0.5, rtol=0.02)
    assert (params["bn2_1"]["bias"] == 0).all()


def test_dtype_is_of_the_computation_not_of_parameters_or_logits():
    model = VGG(**SMALL, dtype="bfloat16")
    weights = variables(model)
    assert {x.dtype for x in jax.tree.leaves(weights)} == {jnp.dtype("float32")}
    logits, state = model.apply(weights, IMAGES, capture_intermediates=lambda _, method: method == "_conv")
    assert logits.dtype == jnp.float32 and (logits != logits.astype(jnp.bfloat16)).mean() > 0.9  # not rounded before
    assert {x.dtype for x in state["intermediates"]["_conv"]} == {jnp.dtype("bfloat16")}
    np.testing.assert_allclose(logits, VGG(**SMALL).apply(weights, IMAGES), atol=0.1)


def test_other_image_sizes_enlarge_the_first_dense_layer():
    model = VGG(stages="D", width=1 / 16)
    tree = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32))
    assert tree["params"]["fc1"]["kernel"].shape == (2 * 2 * 32, 512)


def test_speedruns_network():
    model = VGG(
        stages="speed", hidden=(), whitening=2, pool="first", global_pool=True, bias=False, batch_norm_scale=False
    )
    names = shapes(model)
    assert not [name for name in names if name.startswith("params") and name.endswith("scale")]
    assert [name for name in names if name.endswith("bias")] == [
        name for name in names if "/bn" in name and "bias" in name
    ]
    assert names["batch_stats/whiten/kernel"] == (2, 2, 3, 24)
    assert names["params/logits/kernel"] == (256, 10)
    # maps of 32, 16, 16, 8, 8, 4 pixels per side: the max-pool follows each stage's first convolution
    sides = [32, 16, 16, 8, 8, 4]
    widths = [24, 64, 64, 256, 256, 256, 256]
    expected = sum(9 * a * b * side**2 for a, b, side in zip(widths, widths[1:], sides)) + 2560
    assert sum(row.multiply_adds for row in count(model)) == expected


def test_logits_scale_and_global_pool():
    x = jax.random.normal(jax.random.key(2), (2, 32, 32, 3))
    model = VGG(**SMALL)
    v = variables(model)
    np.testing.assert_allclose(model.clone(logits_scale=0.25).apply(v, x), 0.25 * model.apply(v, x), rtol=1e-6)
    pooled = VGG(stages="light", hidden=(), global_pool=True, batch_norm="none")
    v = variables(pooled)
    kernel, bias = v["params"]["logits"]["kernel"], v["params"]["logits"]["bias"]
    _, seen = pooled.apply(v, x, capture_intermediates=lambda module, _: str(module.name).startswith("conv2"))
    last = jnp.maximum(seen["intermediates"]["conv2_1"]["__call__"][0], 0)
    np.testing.assert_allclose(pooled.apply(v, x), last.max((1, 2)) @ kernel + bias[None], rtol=1e-5, atol=1e-5)


def test_identity_kernels_copy_their_input():
    v = variables(VGG(stages="light", kernel_init="identity", batch_norm="none", bias=False))
    kernel = np.asarray(v["params"]["conv2_1"]["kernel"])  # 16 to 32 channels
    dirac = np.zeros((3, 3, 16, 16))
    dirac[1, 1] = np.eye(16)
    np.testing.assert_array_equal(kernel[..., :16], dirac)
    assert 0 < np.abs(kernel[..., 16:]).max() <= 1 / np.sqrt(9 * 16)


def test_whitening_whitens_the_patches_it_was_made_from():
    images = jnp.cumsum(jax.random.normal(jax.random.key(3), (64, 32, 32, 3)), 2)  # neighbouring pixels are similar
    model = VGG(stages="light", hidden=(), whitening=2)
    v = variables(model, images)
    _, seen = model.apply(v, images, capture_intermediates=lambda module, _: module.name == "whiten")
    out = np.asarray(seen["intermediates"]["whiten"]["__call__"][0])[:, :-1, :-1].reshape(-1, 24)
    np.testing.assert_allclose(out[:, 12:], -out[:, :12], atol=1e-3)
    moments = out[:, :12].T @ out[:, :12] / len(out)
    np.testing.assert_allclose(moments, np.eye(12), atol=0.02)
    trained, other = model.init(jax.random.key(5), images), v["batch_stats"]["whiten"]["kernel"]
    np.testing.assert_array_equal(trained["batch_stats"]["whiten"]["kernel"], other)  # from the images, not the key
