"""What the fields of a config may be: choices, ranges, and what older configs mean."""

from collections.abc import Sequence
from typing import Any

from vgg_jax.augment import FLIPS
from vgg_jax.forward import TTA
from vgg_jax.models import ACTIVATIONS, BATCH_NORM, KERNEL_INITS, POOL, STAGES
from vgg_jax.optim import LOSSES, OPTIMIZERS, SCHEDULES

CHOICES: dict[str, Sequence[str]] = {
    "data.name": ("cifar10", "cifar100", "digits", "folder"),
    "data.normalization": ("channel", "half"),
    "model.stages": tuple(STAGES),
    "model.batch_norm": BATCH_NORM,
    "model.activation": tuple(ACTIVATIONS),
    "model.kernel_init": tuple(KERNEL_INITS),
    "model.pool": POOL,
    "model.dtype": ("float32", "bfloat16"),
    "augment.flip": FLIPS,
    "augment.padding": ("constant", "reflect"),
    "loss.name": LOSSES,
    "optimizer.name": OPTIMIZERS,
    "optimizer.decay": ("all", "kernels"),
    "schedule.name": SCHEDULES,
    "train.tta": TTA,
    "landscape.surface_statistics": ("stored", "batch"),
}
# field -> (smallest, largest) value; for a tuple field, of each of its elements.
RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),
    "data.train_size": (0, float("inf")),
    "data.validation_size": (0, float("inf")),
    "data.seed": (0, 2**32 - 1),
    "data.image_size": (1, 512),
    "model.width": (1 / 64, 64),
    "model.hidden": (1, 2**20),
    "model.batch_norm_epsilon": (1e-12, 1),
    "model.batch_norm_momentum": (0, 0.9999),
    "model.stage_dropout": (0, 0.99),
    "model.head_dropout": (0, 0.99),
    "model.whitening": (0, 8),
    "model.logits_scale": (1e-6, 1e6),
    "augment.crop": (0, 64),
    "augment.cutout": (0, 512),
    "loss.label_smoothing": (0, 0.999),
    "optimizer.learning_rate": (0, 1e6),
    "optimizer.momentum": (0, 0.9999),
    "optimizer.weight_decay": (0, 1e3),
    "optimizer.bias_rate": (0, 1e6),
    "optimizer.muon_rate": (0, 1e6),
    "optimizer.muon_momentum": (0, 0.9999),
    "schedule.warmup_epochs": (0, 1e6),
    "schedule.decay_rate": (0, 1),
    "schedule.decay_epochs": (0.01, 1e9),
    "schedule.milestones": (0, 1e9),
    "schedule.peak": (0, 0.999),
    "schedule.start": (0, 1),
    "schedule.end": (0, 1),
    "train.batch_size": (1, 2**20),
    "train.micro_batch": (0, 2**20),
    "train.average": (0, 0.99999),
    "train.epochs": (1, 10**6),
    "train.eval_epochs": (1, 10**6),
    "train.save_minutes": (0, 1e6),
    "train.devices": (0, 2**20),
    "landscape.seeds": (1, 1000),
    "landscape.probe_steps": (1, 10**9),
    "landscape.step_sizes": (1e-12, 1e6),
    "landscape.learning_rates": (1e-12, 1e6),
    "landscape.band_epochs": (1, 10**6),
    "landscape.images": (1, 10**6),
    "landscape.surface_points": (5, 1001),
    "landscape.surface_radius": (1e-6, 1e3),
    "landscape.hessian_iterations": (1, 1000),
    "landscape.ascent_radius": (0, 10),
    "landscape.ascent_steps": (1, 1000),
}
# Fields that may have any value of their type.
OTHERS = {
    "data.data_dir", "data.archive", "data.resize", "model.batch_norm_head", "model.batch_norm_scale",
    "model.global_pool", "model.bias", "model.residual", "optimizer.nesterov",
}  # fmt: skip
WHOLE = {"model.hidden"}  # tuples of whole numbers
# Fields that runs of earlier versions do not have, and the value that says what those did.
YOUNGER: dict[str, Any] = {
    "model.batch_norm_scale": True, "model.whitening": 0, "model.pool": "last", "model.global_pool": False,
    "model.bias": True, "model.logits_scale": 1.0, "optimizer.bias_rate": 1.0, "optimizer.muon_rate": 0.24,
    "optimizer.muon_momentum": 0.6, "schedule.start": 0.2, "schedule.end": 0.0, "train.micro_batch": 0,
    "train.average": 0.0, "train.tta": "none", "train.devices": 0,
}  # fmt: skip
