"""Every field of a config, declared once: its default, what it means, what it may be, and since when it is there.

The values are project 1's recipe with BatchNorm alone. An overlay starts from here and changes a few; the command line
changes any (`--config.train.epochs=1`). An empty tuple, "" or 0 means none or off unless a line says otherwise.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
_ANY = float("inf")


class Field(NamedTuple):
    """One field.

    Attributes:
      default: of the type that every value has.
      meaning: in words, with the unit.
      choices: what a text may be; empty for any text.
      low, high: the smallest and the largest number; of a tuple, of each of its elements.
      before: what runs did that are older than the field; None where all runs have it.
    """

    default: Any
    meaning: str
    choices: Sequence[str] = ()
    low: float = -_ANY
    high: float = _ANY
    before: Any = None


def field(
    default: T,
    meaning: str,
    *choices: str,
    low: float = -_ANY,
    high: float = _ANY,
    before: T | None = None,
) -> T:
    """Declare a field; the type checker takes it for its value."""
    return Field(default, meaning, choices, low, high, before)  # type: ignore[return-value]


# Output channels of every 3x3 convolution; each stage has one 2x2 max-pool, at its end but for pool="first".
# A, B, D, E are VGG-11, 13, 16, 19 (Simonyan & Zisserman 2015, table 1).
STAGES: dict[str, tuple[tuple[int, ...], ...]] = {
    "A": ((64,), (128,), (256,) * 2, (512,) * 2, (512,) * 2),
    "B": ((64,) * 2, (128,) * 2, (256,) * 2, (512,) * 2, (512,) * 2),
    "D": ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3),
    "E": ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4),
    "light": ((16,), (32,)),
    "speed": ((64,) * 2, (256,) * 2, (256,) * 2),  # after airbench94 (Jordan 2024)
}


class Data:
    name = field("cifar10", "which images", "cifar10", "cifar100", "digits", "folder")
    data_dir = field("", "tfds directory (none: $TFDS_DATA_DIR, else ~/tensorflow_datasets), or the folder")
    archive = field("", "a local cifar-10-binary.tar.gz or cifar-100-binary.tar.gz, to prepare data_dir from")
    train_size = field(0, "images to train on, drawn by data.seed; 0: all", low=0)
    validation_size = field(0, "images held out of the training images, drawn by data.seed", low=0)
    seed = field(0, "of the two draws above", low=0, high=2**32 - 1)
    normalization = field("channel", "channel: training mean and std; half: (x - 0.5) / 0.5", "channel", "half")
    image_size = field(32, "pixels; must halve once a stage", low=1, high=512)
    resize = field(False, "folder: scale and centre-crop pictures of another size")


class Model:
    stages = field("D", "A, B, D, E: VGG-11, 13, 16, 19; light and speed are smaller", *STAGES)
    width = field(1.0, "multiplies every convolution's channels", low=1 / 64, high=64)
    hidden = field((512,), "sizes of the hidden dense layers", low=1, high=2**20)
    batch_norm = field("before", "its place: before or after the activation; or none", "none", "before", "after")
    batch_norm_head = field(True, "also after each hidden dense layer")
    batch_norm_scale = field(True, "False: BatchNorm has a bias but no scale", before=True)
    batch_norm_epsilon = field(1e-3, "added to the variance", low=1e-12, high=1)
    batch_norm_momentum = field(0.9, "of the old running statistics (0.1 in PyTorch's convention)", low=0, high=0.9999)
    stage_dropout: tuple[float, ...] = field(
        (), "none or a rate per stage, after every convolution but the stage's last", low=0, high=0.99
    )
    head_dropout: tuple[float, ...] = field((), "none or a rate per dense layer, on its input", low=0, high=0.99)
    whitening = field(0, "side of the patches that a fixed first layer whitens, as 2", low=0, high=8, before=0)
    pool = field("last", "after which of its convolutions a stage is pooled", "last", "first", before="last")
    global_pool = field(False, "the maximum over all that is left of the image enters the head", before=False)
    bias = field(True, "of convolutions and dense layers", before=True)
    logits_scale = field(1.0, "what the outputs are multiplied by", low=1e-6, high=1e6, before=1.0)
    residual = field(False, "every convolution becomes a residual block of two")
    activation = field("relu", "leaky_relu has slope 0.1", "relu", "leaky_relu", "gelu", "silu")
    kernel_init = field(
        "msr", "of every kernel; biases start at 0", "msr", "xavier_normal", "kaiming_leaky", "he_normal", "identity"
    )
    dtype = field("float32", "of the computation; parameters stay float32", "float32", "bfloat16")


class Augment:
    flip = field(
        "random", "mirror left-right: random with probability 1/2, alternate every other epoch",
        "none", "random", "alternate",
    )  # fmt: skip
    crop = field(0, "pixels of padding, then a random crop of the original size", low=0, high=64)
    padding = field("constant", "what the crop pads with: constant is 0 after normalisation", "constant", "reflect")
    cutout = field(0, "side in pixels of a square set to 0 after normalisation", low=0, high=512)


class Loss:
    name = field("cross_entropy", "squared_error is against one-hot targets", "cross_entropy", "squared_error")
    label_smoothing = field(0.0, "share of the target spread evenly over all classes", low=0, high=0.999)


class Optimizer:
    name = field(
        "sgd", "sgd and adam take weight decay as an L2 gradient, sgdw and adamw decoupled",
        "sgd", "sgdw", "adam", "adamw", "muon",
    )  # fmt: skip
    learning_rate = field(0.01, "the schedule's peak", low=0, high=1e6)
    momentum = field(0.9, "sgd, sgdw, muon's rest", low=0, high=0.9999)
    nesterov = field(False, "sgd, sgdw, muon's rest")
    bias_rate = field(1.0, "multiplies the learning rate of biases, BatchNorm's too", low=0, high=1e6, before=1.0)
    muon_rate = field(
        0.24,
        "muon: peak learning rate of convolution kernels; the rest is trained by sgd",
        low=0,
        high=1e6,
        before=0.24,
    )
    muon_momentum = field(0.6, "muon", low=0, high=0.9999, before=0.6)
    weight_decay = field(5e-4, "0: none; muon's kernels never decay: their norms are held", low=0, high=1e3)
    decay = field("all", "which parameters decay", "all", "kernels")


class Schedule:
    name = field(
        "step", "how the learning rate moves",
        "constant", "step", "milestones", "cosine", "one_cycle", "triangular",
    )  # fmt: skip
    warmup_epochs = field(
        0.0, "linear from 0 (not one_cycle, triangular); at most half of a run that it would fill", low=0, high=1e6
    )
    decay_rate = field(0.5, "step, milestones: factor at each drop", low=0, high=1)
    decay_epochs = field(25.0, "step: epochs between drops", low=0.01, high=1e9)
    milestones: tuple[float, ...] = field((), "milestones: the epochs of the drops", low=0, high=1e9)
    peak = field(0.3, "one_cycle, triangular: where the peak lies, as a fraction of the run", low=0, high=0.999)
    start = field(0.2, "triangular: first learning rate, as a fraction of the peak", low=0, high=1, before=0.2)
    end = field(0.0, "triangular: last learning rate, as a fraction of the peak", low=0, high=1, before=0.0)


class Train:
    batch_size = field(
        128, "images a step, over all devices; the last partial batch of an epoch is dropped", low=1, high=2**20
    )
    micro_batch = field(
        0, "most images a device takes at once, BatchNorm's statistics are theirs; 0: the whole batch",
        low=0, high=2**20, before=0,
    )  # fmt: skip
    average = field(
        0.0, "decay per step of a moving average of the weights, which is then evaluated; 0: none",
        low=0, high=0.99999, before=0.0,
    )  # fmt: skip
    epochs = field(300, "passes over the training images", low=1, high=10**6)
    eval_epochs = field(1, "epochs between evaluations, which are the log points", low=1, high=10**6)
    start_from = field("", "a run directory whose weights training starts with; none: random ones", before="")
    tta = field(
        "none", "views averaged for one more test accuracy at the end", "none", "flip", "flip_shift", before="none"
    )
    devices = field(
        0, "how many to use, each with an equal share of the batch; 0: all there are", low=0, high=2**20, before=0
    )
    save_minutes = field(5.0, "minutes between checkpoints; also saved at the end and when stopped", low=0, high=1e6)


class Landscape:
    """Only in the configs of `python -m vgg_jax.landscape`."""

    seeds = field(3, "networks of each kind, from config.seed on", low=1, high=1000)
    probe_steps = field(50, "training steps between two probes along the gradient", low=1, high=10**9)
    step_sizes: tuple[float, ...] = field((0.01, 0.02, 0.05, 0.1, 0.2), "e of w - e * gradient", low=1e-12, high=1e6)
    learning_rates: tuple[float, ...] = field(
        (1e-3, 2e-3, 1e-4, 5e-4), "of the learning-rate band", low=1e-12, high=1e6
    )
    band_epochs = field(5, "of the learning-rate band", low=1, high=10**6)
    images = field(1024, "training images that surfaces, sharpness and their like are measured on", low=1, high=10**6)
    surface_points = field(41, "a side; odd, so that the middle is the network itself", low=5, high=1001)
    surface_radius = field(1.0, "in units of each filter's norm", low=1e-6, high=1e3)
    surface_statistics = field(
        "stored", "BatchNorm's at every point: the run's, or those of the images", "stored", "batch"
    )
    hessian_iterations = field(30, "of Lanczos", low=1, high=1000)
    ascent_radius = field(0.01, "of the worst case, in units of each filter's norm", low=0, high=10)
    ascent_steps = field(20, "of the search for the worst case", low=1, high=1000)


class Config:
    """A config as the type checker sees it; what functions are given is a ConfigDict with these fields."""

    seed = field(0, "initialisation, shuffling, augmentation and dropout", low=0, high=2**32 - 1)
    data: Data
    model: Model
    augment: Augment
    loss: Loss
    optimizer: Optimizer
    schedule: Schedule
    train: Train
    landscape: Landscape


GROUPS: dict[str, type] = {name: group for name, group in Config.__annotations__.items() if isinstance(group, type)}


def _declared(prefix: str, group: type) -> dict[str, Field]:
    return {prefix + name: value for name, value in vars(group).items() if isinstance(value, Field)}


# {"train.epochs": Field, ...}
FIELDS = _declared("", Config) | {
    name: declared for group, kind in GROUPS.items() for name, declared in _declared(f"{group}.", kind).items()
}
