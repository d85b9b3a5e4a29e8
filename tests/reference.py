"""The modern recipe as a plain Flax + optax loop, with no code of the package in its step.

`python tests/reference.py DATA_DIR` trains both, three seeds each, at a quarter of the width on 10,000
CIFAR-10 images for 10 epochs, and prints both final test accuracies. The package is used here
only to read the data and to run its own side.
"""

import functools
import json
import sys
import tempfile
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

WIDTHS = [[16, 16], [32, 32], [64] * 3, [128] * 3, [128] * 3]  # a quarter of VGG16's


class PlainVGG(nn.Module):
    """Convolution, BatchNorm, ReLU; one hidden dense layer of 512 with BatchNorm."""

    @nn.compact
    def __call__(self, x, train):
        norm = functools.partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-3)
        he = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
        linear = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        for stage in WIDTHS:
            for width in stage:
                x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
                x = nn.relu(norm()(nn.Conv(width, (3, 3), padding="VALID", kernel_init=he)(x)))
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.relu(norm()(nn.Dense(512, kernel_init=linear)(x.reshape(len(x), -1))))
        return nn.Dense(10, kernel_init=linear)(x)


def augmented(rng, images):
    """Random crop with 4 pixels of zero padding, random flip, 8x8 cutout: in NumPy, image by image."""
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)))
    batch = np.empty_like(images)
    for k in range(len(images)):
        i, j = rng.integers(0, 9, 2)
        image = padded[k, i : i + 32, j : j + 32].copy()
        if rng.random() < 0.5:
            image = image[:, ::-1]
        y, x = rng.integers(0, 32, 2) - 4
        batch[k] = image
        batch[k, max(y, 0) : max(y + 8, 0), max(x, 0) : max(x + 8, 0)] = 0
    return batch


def train(images, labels, test_images, test_labels, seed, epochs, batch_size):
    """Final test accuracy. Images are normalised float32 [N, 32, 32, 3]."""
    steps = len(images) // batch_size
    model, rng = PlainVGG(), np.random.default_rng(seed)
    variables = model.init(jax.random.key(seed), images[:2], True)
    schedule = optax.warmup_cosine_decay_schedule(0, 0.1, 5 * steps, epochs * steps)
    kernels = lambda params: jax.tree.map(lambda x: x.ndim > 1, params)  # noqa: E731
    optimizer = optax.chain(optax.add_decayed_weights(5e-4, kernels), optax.sgd(schedule, 0.9, nesterov=True))

    @jax.jit
    def step(params, stats, opt_state, x, y):
        def loss(params):
            logits, new = model.apply({"params": params, "batch_stats": stats}, x, True, mutable=["batch_stats"])
            targets = optax.smooth_labels(jax.nn.one_hot(y, 10), 0.1)
            return optax.softmax_cross_entropy(logits, targets).mean(), new["batch_stats"]

        grads, stats = jax.grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), stats, opt_state

    params, stats = variables["params"], variables["batch_stats"]
    opt_state = optimizer.init(params)
    for _ in range(epochs):
        order = rng.permutation(len(images))
        for i in range(steps):
            chosen = order[i * batch_size : (i + 1) * batch_size]
            params, stats, opt_state = step(params, stats, opt_state, augmented(rng, images[chosen]), labels[chosen])
    infer = jax.jit(lambda x: model.apply({"params": params, "batch_stats": stats}, x, False).argmax(-1))
    predicted = np.concatenate([infer(test_images[i : i + 500]) for i in range(0, len(test_images), 500)])
    return float((predicted == test_labels).mean())


def main(data_dir):
    from vgg_jax import main as package
    from vgg_jax.datasets import load as data
    from vgg_jax.settings import config as configs

    fields = {
        "data.data_dir": data_dir, "data.train_size": "10000", "model.width": "0.25", "train.epochs": "10",
        "train.eval_epochs": "10",
    }  # fmt: skip
    config = configs.load("configs/modern.py", fields)
    splits = data.load(config)
    mean, std = (np.float32([[[x]]]) for x in (splits["train"].mean, splits["train"].std))
    images, test_images = ((splits[s].images / np.float32(255) - mean) / std for s in ("train", "test"))
    results = {"package": [], "reference": []}
    for seed in range(3):
        with tempfile.TemporaryDirectory() as folder:
            overrides = [f"--config.{k}={v}" for k, v in (fields | {"seed": str(seed)}).items()]
            package.main(["--config", "configs/modern.py", "--workdir", folder, *overrides])
            summary = json.loads((Path(folder) / "summary.json").read_text())
        results["package"].append(summary["protocols"]["final"]["test_accuracy"])
        labels = splits["train"].labels, splits["test"].labels
        accuracy = train(images, labels[0], test_images, labels[1], seed, config.train.epochs, config.train.batch_size)
        results["reference"].append(accuracy)
        print(results, flush=True)
    for name, accuracies in results.items():
        print(f"{name}: {np.mean(accuracies):.2%} +- {np.std(accuracies, ddof=1):.2%} (n={len(accuracies)})")


if __name__ == "__main__":
    main(sys.argv[1])
