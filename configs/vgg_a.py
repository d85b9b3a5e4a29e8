"""Project 2's VGG_A: the baseline, without BatchNorm, dropout or augmentation.

COMMAND   python -m vgg_jax.main --config configs/vgg_a.py
RUNTIME   2.8 minutes an epoch on two AMD EPYC cores with AVX-512 (n=1); GPU not yet measured
EXPECTED  reported: 75.77 % (best epoch on the test set); ours: 75.70 %, at the final epoch 74.77 % (n=1)
"""

from ml_collections import ConfigDict

from configs.default import get_config as default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.normalization = "half"
    config.model.update(stages="A", hidden=(512, 512), batch_norm="none", batch_norm_head=False)
    config.model.update(batch_norm_epsilon=1e-5, kernel_init="xavier_normal")
    config.augment.flip = "none"
    config.optimizer.update(name="adam", learning_rate=1e-3, weight_decay=0.0)
    config.schedule.name = "constant"
    config.train.update(batch_size=1024, epochs=30)
    return config
