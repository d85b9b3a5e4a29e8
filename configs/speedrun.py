"""94 % with test-time augmentation in the least time, after airbench94_muon (Jordan 2024).

COMMAND   python -m vgg_jax.main --config configs/speedrun.py
RUNTIME   33 to 35 minutes on two CPU cores with AVX-512, 60.5 without (AMD EPYC); GPU not yet measured
EXPECTED  at the final epoch 94.34 +- 0.14 % with test-time augmentation, 93.57 +- 0.10 % without (n=3)
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from configs.default import get_config as default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.model.update(stages="speed", hidden=(), whitening=2, pool="first", global_pool=True, logits_scale=1 / 9)
    config.model.update(bias=False, activation="gelu", kernel_init="identity")
    config.model.update(batch_norm_scale=False, batch_norm_epsilon=1e-12, batch_norm_momentum=0.8)
    config.augment.update(flip="alternate", crop=2, padding="reflect")
    config.loss.label_smoothing = 0.2
    config.optimizer.update(name="muon", muon_rate=0.12, learning_rate=0.83, momentum=0.85, nesterov=True)
    config.optimizer.update(bias_rate=64.0, weight_decay=2e-3, decay="kernels")
    config.schedule.update(name="triangular", peak=0.0)
    config.train.update(batch_size=500, micro_batch=125, epochs=12, eval_epochs=12, tta="flip_shift")
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """Both learning rates lower and higher: vgg-jax sweep --config speedrun --config.data.validation_size=5000."""
    yield {}
    given = get_config().optimizer
    for factor in (0.7, 1.4):
        yield {f"optimizer.{rate}": round(given[rate] * factor, 3) for rate in ("muon_rate", "learning_rate")}
