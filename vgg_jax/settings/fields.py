"""Every field of a config, declared once: default, meaning, allowed values, and the value that older runs had.

The defaults are VGG16 with BatchNorm, also in the head, and project 1's optimizer and schedule. A recipe starts from
them and changes a few; the command line can change any (`--config.train.epochs=1`).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from vgg_jax.settings.stages import STAGES

T = TypeVar("T")
_ANY = float("inf")
_SGD = ("optimizer.name", "sgd", "sgdw", "muon")
_MUON = ("optimizer.name", "muon")
_DROPS = ("schedule.name", "step", "milestones")
_PEAK = ("schedule.name", "one_cycle", "triangular")
_TRIANGLE = ("schedule.name", "triangular")


class Field(NamedTuple):
    """One field.

    Attributes:
      default: the default; every value has its type.
      meaning: in words, with the unit.
      choices: the allowed texts; empty for any text.
      low, high: the smallest and largest allowed number, for a tuple of each element.
      before: the value in runs older than the field; None if all runs have the field.
      only: another field and its values with which this one does something; without values, any but none, 0, "" or ().
    """

    default: Any
    meaning: str
    choices: Sequence[str] = ()
    low: float = -_ANY
    high: float = _ANY
    before: Any = None
    only: Sequence[str] = ()


def field(
    default: T,
    meaning: str,
    *choices: str,
    low: float = -_ANY,
    high: float = _ANY,
    before: T | None = None,
    only: Sequence[str] = (),
) -> T:
    """Declare a field; to the type checker it has the type of its value."""
    return Field(default, meaning, choices, low, high, before, only)  # type: ignore[return-value]


class Data:
    name = field("cifar10", "the data set", "cifar10", "cifar100", "digits", "folder")
    data_dir = field(
        "", "cifar: tfds directory (empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets); folder: its path",
        only=("data.name", "cifar10", "cifar100", "folder"),
    )  # fmt: skip
    archive = field(
        "", "a local cifar-10-binary.tar.gz or cifar-100-binary.tar.gz, to prepare data_dir from",
        only=("data.name", "cifar10", "cifar100"),
    )  # fmt: skip
    train_size = field(0, "number of training images, drawn with data.seed; 0: all", low=0)
    validation_size = field(0, "number of training images held out, drawn with data.seed; 0: none", low=0)
    seed = field(0, "seed for drawing train_size and validation_size images", low=0, high=2**32 - 1)
    normalization = field("channel", "channel: training mean and std; half: (x - 0.5) / 0.5", "channel", "half")
    image_size = field(32, "side in pixels; every stage must halve it exactly", low=1, high=512)
    resize = field(False, "scale and centre-crop pictures of another size", only=("data.name", "folder"))
    shrink = field(
        "area", "how larger pictures are scaled down", "area", "bicubic", before="bicubic", only=("data.resize",)
    )


class Model:
    stages = field("D", "A, B, D, E: VGG-11, 13, 16, 19; light and speed are smaller", *STAGES)
    width = field(1.0, "multiplies every convolution's channels", low=1 / 64, high=64)
    hidden = field((512,), "sizes of the hidden dense layers; (): none", low=1, high=2**20)
    batch_norm = field("before", "BatchNorm before or after the activation, or none", "none", "before", "after")
    batch_norm_head = field(True, "BatchNorm also after each hidden dense layer")
    batch_norm_scale = field(True, "BatchNorm has a scale (it always has a bias)", before=True)
    batch_norm_epsilon = field(1e-3, "BatchNorm: added to the variance", low=1e-12, high=1)
    batch_norm_momentum = field(0.9, "decay of running statistics (0.1 in PyTorch's convention)", low=0, high=0.9999)
    stage_dropout: tuple[float, ...] = field(
        (), "one rate per stage, applied after every convolution except the stage's last; (): none", low=0, high=0.99,
    )  # fmt: skip
    spatial_dropout = field(
        False, "stage_dropout drops whole maps (Dropout2d), not elements", before=False, only=("model.stage_dropout",)
    )
    head_dropout: tuple[float, ...] = field((), "one rate per dense layer, on its input; (): none", low=0, high=0.99)
    whitening = field(0, "patch side of a fixed first layer that whitens patches; 0: none", low=0, high=8, before=0)
    pool = field("last", "max-pool after the first or the last convolution of a stage", "last", "first", before="last")
    global_pool = field(False, "global max-pool before the head", before=False)
    bias = field(True, "convolutions and dense layers have a bias", before=True)
    logits_scale = field(1.0, "factor on the logits", low=1e-6, high=1e6, before=1.0)
    residual = field(False, "every convolution becomes a residual block of two")
    activation = field("relu", "leaky_relu has slope 0.1; gelu is its tanh form", "relu", "leaky_relu", "gelu", "silu")
    tied = field(False, "convolutions with as many outputs as inputs share one kernel for each width", before=False)
    kernel_init = field(
        "msr", "msr, he_normal: He normal by fan-out, by fan-in; with these and identity, dense kernels as pytorch",
        "msr", "xavier_normal", "kaiming_leaky", "he_normal", "pytorch", "identity",
    )  # fmt: skip
    bias_init = field(
        "zeros", "pytorch: uniform within 1 / sqrt(inputs of an output), as PyTorch's default; BatchNorm's are 0",
        "zeros", "pytorch", before="zeros", only=("model.bias",),
    )  # fmt: skip
    dtype = field(
        "float32", "dtype of the computation; parameters, statistics and the last layer stay float32",
        "float32", "bfloat16",
    )  # fmt: skip


class Augment:
    flip = field(
        "random", "mirror left-right: random with probability 1/2, alternate every other epoch",
        "none", "random", "alternate",
    )  # fmt: skip
    crop = field(0, "pixels of padding before a random crop of the original size; 0: no crop", low=0, high=64)
    padding = field(
        "constant", "padding of the crop; constant: 0 after normalisation", "constant", "reflect",
        only=("augment.crop",),
    )  # fmt: skip
    cutout = field(0, "side in pixels of a square set to 0 after normalisation; 0: off", low=0, high=512)
    policy = field("none", "trivial: TrivialAugment, one of 14 changes to each image", "none", "trivial", before="none")
    mixup = field(0.0, "alpha of Beta for each image's share in a blend of two; 0: off", low=0, high=99, before=0.0)
    cutmix = field(0.0, "alpha of Beta for the area of each image's pasted square; 0: off", low=0, high=99, before=0.0)
    small_size = field(0, "progressive resizing: side in a run's first part; 0: off", low=0, high=512, before=0)
    small_part = field(0.5, "that part's share of the run", low=1e-3, high=1, before=0.5, only=("augment.small_size",))


class Loss:
    name = field("cross_entropy", "the loss; squared_error uses one-hot targets", "cross_entropy", "squared_error")
    label_smoothing = field(0.0, "share of the target spread evenly over all classes", low=0, high=0.999)


class Optimizer:
    name = field(
        "sgd", "sgd, adam: weight decay as an L2 gradient; sgdw, adamw: decoupled; muon: sgd for all but convolutions",
        "sgd", "sgdw", "adam", "adamw", "muon",
    )  # fmt: skip
    learning_rate = field(0.01, "the schedule's peak", low=0, high=1e6)
    momentum = field(0.9, "momentum (with muon, of its sgd part)", low=0, high=0.9999, only=_SGD)
    nesterov = field(False, "Nesterov momentum (with muon, in its sgd part)", only=_SGD)
    bias_rate = field(1.0, "factor on the learning rate of biases, BatchNorm's too", low=0, high=1e6, before=1.0)
    muon_rate = field(0.24, "peak learning rate of the convolution kernels", low=0, high=1e6, before=0.24, only=_MUON)
    muon_momentum = field(0.6, "Nesterov momentum of convolution kernels", low=0, high=0.9999, before=0.6, only=_MUON)
    weight_decay = field(5e-4, "not for muon's convolution kernels, whose norms are fixed; 0: none", low=0, high=1e3)
    decay = field("all", "the parameters with weight decay", "all", "kernels", only=("optimizer.weight_decay",))
    sam_radius = field(0.0, "rho of sharpness-aware steps (SAM): how far uphill; 0: off", low=0, high=1e3, before=0.0)


class Schedule:
    name = field(
        "step", "the learning-rate schedule; one_cycle: cosine up from a 25th, then down to about 0",
        "constant", "step", "milestones", "cosine", "one_cycle", "triangular",
    )  # fmt: skip
    warmup_epochs = field(
        0.0, "linear warm-up from 0; half the run if it would fill the run; 0: none", low=0, high=1e6,
        only=("schedule.name", "constant", "step", "milestones", "cosine"),
    )  # fmt: skip
    decay_rate = field(0.5, "factor at each drop", low=0, high=1, only=_DROPS)
    decay_epochs = field(25.0, "epochs between drops", low=0.01, high=1e9, only=("schedule.name", "step"))
    milestones: tuple[float, ...] = field(
        (), "the epochs of the drops; (): none", low=0, high=1e9, only=("schedule.name", "milestones"),
    )  # fmt: skip
    peak = field(0.3, "position of the peak, as a fraction of the run", low=0, high=0.999, only=_PEAK)
    start = field(0.2, "first learning rate, as a fraction of the peak", low=0, high=1, before=0.2, only=_TRIANGLE)
    end = field(0.0, "last learning rate, as a fraction of the peak", low=0, high=1, before=0.0, only=_TRIANGLE)


class Train:
    batch_size = field(
        128, "images per step, over all devices; the last partial batch of an epoch is dropped", low=1, high=2**20,
    )  # fmt: skip
    micro_batch = field(
        0, "gradient accumulation: most images that a device takes at once, with their BatchNorm statistics; 0: all",
        low=0, high=2**20, before=0,
    )  # fmt: skip
    average = field(
        0.0, "decay per step of a moving average (EMA) of weights and statistics, which is then evaluated; 0: none",
        low=0, high=0.99999, before=0.0,
    )  # fmt: skip
    epochs = field(300, "passes over the training images", low=1, high=10**6)
    eval_epochs = field(1, "epochs between evaluations (log points)", low=1, high=10**6)
    start_from = field("", 'a run directory whose weights training starts with; "": random ones', before="")
    tta = field(
        "none", "test-time augmentation for an extra test accuracy at the end", "none", "flip", "flip_shift",
        before="none",
    )  # fmt: skip
    devices = field(0, "number of devices, each with an equal share of the batch; 0: all", low=0, high=2**20, before=0)
    tracker = field(
        "none", "where the records go besides metrics.jsonl and TensorBoard", "none", "wandb", "trackio", before="none",
    )  # fmt: skip
    save_minutes = field(5.0, "minutes between checkpoints, also saved when stopped; 0: every 2 s", low=0, high=1e6)


class Landscape:
    """Only in the configs of `python -m vgg_jax.landscape`."""

    seeds = field(6, "number of seeds for each of the two networks, starting at config.seed", low=1, high=1000)
    probe_steps = field(50, "training steps between two probes along the gradient", low=1, high=10**9)
    step_sizes: tuple[float, ...] = field(
        (0.01, 0.02, 0.05, 0.1, 0.2), "step sizes e of probes at w - e * gradient", low=1e-12, high=1e6
    )
    update_sizes: tuple[float, ...] = field(
        (0.5, 1.0, 2.0, 4.0, 8.0), "step sizes of probes along the update", low=1e-12, high=1e6, before=(1.0,),
    )  # fmt: skip
    equal_loss = field(0.5, "training loss of the comparison at equal loss; 0: none", low=0, high=1e6, before=0.0)
    learning_rates: tuple[float, ...] = field(
        (1e-3, 2e-3, 1e-4, 5e-4), "learning rates of the learning-rate band", low=1e-12, high=1e6
    )
    band_epochs = field(5, "training epochs of the learning-rate band", low=1, high=10**6)
    images = field(1024, "number of training images to measure surfaces and sharpness on", low=1, high=10**6)
    surface_points = field(41, "grid points per side; odd, so that the middle is the network itself", low=5, high=1001)
    surface_radius = field(1.0, "half a side of the surface, in units of each filter's norm", low=1e-6, high=1e3)
    directions = field(8, "number of random lines through a network", low=1, high=1000, before=8)
    hessian_iterations = field(30, "Lanczos iterations", low=1, high=1000)
    ascent_radius = field(0.01, "radius of the worst-case search, in units of each filter's norm", low=0, high=10)
    ascent_steps = field(20, "gradient-ascent steps of the worst-case search", low=1, high=1000)


class Config:
    """A config as the type checker sees it; at run time it is a ConfigDict with these fields."""

    seed = field(0, "seed of initialisation, shuffling, augmentation and dropout", low=0, high=2**32 - 1)
    data: Data
    model: Model
    augment: Augment
    loss: Loss
    optimizer: Optimizer
    schedule: Schedule
    train: Train
    landscape: Landscape


GROUPS: dict[str, type] = dict(Config.__annotations__)


def _declared(prefix: str, group: type) -> dict[str, Field]:
    return {prefix + name: value for name, value in vars(group).items() if isinstance(value, Field)}


# {"train.epochs": Field, ...}
FIELDS = _declared("", Config) | {
    name: declared for group, kind in GROUPS.items() for name, declared in _declared(f"{group}.", kind).items()
}
