"""Our networks against the two projects' own classes: same weights, same logits; and the same spread of fresh weights.

git clone https://github.com/chenjz13/CIFAR-10_Pytorch /tmp/project1
git clone https://github.com/YuehuGong/VGG_BatchNorm /tmp/project2
python tests/originals.py /tmp/project1/Vgg.py /tmp/project2/codes/VGG_BatchNorm/models/vgg.py

It runs the code of these files. Needs PyTorch.
"""

import importlib.util
import sys
from pathlib import Path

import jax
import numpy as np
import torch
from flax import traverse_util

import vgg_jax
from vgg_jax.model.chain import chain
from vgg_jax.model.network import make_model
from vgg_jax.torch import names

CLASSES = (
    {"bn_dropout": "VggDropBN", "dropout": "VggDropout", "bn": "VggBN", "plain_tied": "Vgg"},
    {
        "vgg_a": "VGG_A", "vgg_a_bn": "VGG_A_BatchNorm", "vgg_a_dropout": "VGG_A_Dropout",
        "vgg_a_dropout_bn": "VGG_A_Dropout_BN", "vgg_a_dropout_bn_res": "VGG_A_Dropout_BN_Res",
        "vgg_a_leaky_relu": "VGG_A_LeakyReLU", "vgg_light": "VGG_A_Light",
    },
)  # fmt: skip
# Project 1 names its shared convolutions in another order than they are called; the others have ours.
TIED = {
    "conv1": "conv1_1", "conv2": "conv64", "conv3": "conv2_1", "conv4": "conv128", "conv5": "conv3_1",
    "conv6": "conv256", "conv7": "conv4_1", "conv8": "conv512", "fc1": "fc1", "fc2": "logits",
}  # fmt: skip


def module_of(file):
    sys.path.insert(0, str(file.parent.parent))  # project 2 imports its utils
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def under_their_names(state, theirs):
    """Our PyTorch arrays under the keys of their state dict."""
    if any(key.startswith("conv512.") for key in state):
        return {key: state[f"{TIED[layer]}.{leaf}"] for key in theirs for layer, leaf in [key.split(".")]}
    assert len(state) == len(theirs)
    return dict(zip(theirs, state.values()))


def difference_of_logits(model, table, flat, theirs):
    """||ours - theirs|| / ||theirs|| in float64, with random weights and statistics of ours."""
    rng = np.random.default_rng(0)
    flat = {
        path: value if path.endswith("kernel") else rng.uniform(0.5, 1.5, value.shape) - path.endswith(("mean", "bias"))
        for path, value in flat.items()
    }
    images = rng.normal(size=(4, 3, 32, 32))
    arrays = under_their_names(names.to_torch(table, flat), theirs.state_dict())
    theirs.double().load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()})
    with torch.no_grad(), jax.enable_x64():
        expected = theirs.eval()(torch.from_numpy(images)).numpy()
        wide = traverse_util.unflatten_dict({path: np.float64(value) for path, value in flat.items()}, sep="/")
        logits = np.asarray(model.clone(dtype="float64").apply(wide, images.transpose(0, 2, 3, 1)))
    return np.linalg.norm(logits - expected) / np.linalg.norm(expected)


def spread_of_fresh_weights(table, flat, theirs, skip):
    """The largest |std of ours / std of theirs - 1| of an array of 1,000 numbers or more, but for some layers."""
    ours = under_their_names(names.to_torch(table, flat), theirs.state_dict())
    large = {key: array.numpy() for key, array in theirs.state_dict().items() if array.numel() >= 1000}
    return max(abs(ours[key].std() / array.std() - 1) for key, array in large.items() if not key.startswith(skip))


def main(files):
    for file, classes in zip(files, CLASSES, strict=True):
        # Project 1 initialises its convolutions in train.py, after the class has.
        module, skip = module_of(Path(file)), "conv" if "bn" in classes else "none"
        for recipe, name in classes.items():
            config = vgg_jax.config(recipe)
            model, table = make_model(config, 10), names.leaves(config.model, chain(config.model, 10, 32))
            variables = jax.device_get(model.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32)))
            flat, theirs = traverse_util.flatten_dict(variables, sep="/"), getattr(module, name)()
            spread = spread_of_fresh_weights(table, flat, theirs, skip)
            apart = difference_of_logits(model, table, flat, theirs)
            parameters = sum(parameter.numel() for parameter in theirs.parameters())
            print(
                f"{recipe:22}{parameters:>12,} parameters   logits {apart:.1e}   spread of fresh weights {spread:.3f}"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
