"""VGG16 with BatchNorm as PyTorch's weights have it: two hidden dense layers (torchvision, chenyaofo).

COMMAND   python -m vgg_jax.main --config configs/vgg16_bn.py
RUNTIME   not measured
EXPECTED  not trained here; chenyaofo reports 94.16 % (best epoch on test, batch 256); this recipe imports them
"""

from ml_collections import ConfigDict

from configs.default import get_config as default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.model.update(hidden=(512, 512), batch_norm_head=False, head_dropout=(0.0, 0.5, 0.5))
    config.model.batch_norm_epsilon = 1e-5  # PyTorch's; it stands in no weight file
    config.augment.crop = 4
    config.optimizer.update(learning_rate=0.1, nesterov=True)
    config.schedule.update(name="cosine")
    config.train.epochs = 200
    return config
