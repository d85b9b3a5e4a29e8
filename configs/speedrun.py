"""speedrun draft."""

from ml_collections import ConfigDict

from configs.default import get_config as default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.model.update(
        stages="speed", hidden=(), whitening=2, pool="first", global_pool=True, bias=False, logits_scale=1 / 9,
        batch_norm_scale=False, batch_norm_epsilon=1e-12, batch_norm_momentum=0.6, activation="gelu",
        kernel_init="identity",
    )  # fmt: skip
    config.augment.update(flip="alternate", crop=2, padding="reflect")
    config.loss.label_smoothing = 0.2
    config.optimizer.update(
        name="muon", learning_rate=1.66, momentum=0.85, nesterov=True, bias_rate=64.0, weight_decay=2e-3, decay="kernels"
    )
    config.schedule.update(name="triangular", peak=0.0, end=0.0)
    config.train.update(batch_size=500, micro_batch=125, epochs=8, tta="flip_shift")
    return config
