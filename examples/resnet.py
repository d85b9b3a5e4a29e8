"""Your own network: a small ResNet (He et al. 2016), trained like the package's VGG.

COMMAND   python -m vgg_jax.main --config examples/resnet.py
RUNTIME   about 2 minutes on two CPU cores (1 min 55 s on Intel with AVX-512, n=1)
EXPECTED  about 99 % on scikit-learn's digits (99.17 % at the final epoch, n=1)
"""

import jax
from flax import linen as nn
from ml_collections import ConfigDict

from configs.quickstart import get_config as quickstart_config
from vgg_jax.model.layers import conv_general_dilated  # faster on a CPU than XLA's


class ResNet(nn.Module):
    """Stages of residual blocks, one stage per width; a block has two 3x3 convolutions.

    Every stage except the first halves the image.
    """

    widths: tuple[int, ...]
    blocks: int
    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """[N, H, W, 3] -> logits [N, num_classes]"""

        def conv(y: jax.Array, width: int, size: int = 3, stride: int = 1) -> jax.Array:
            sides, strides = (size, size), (stride, stride)
            return nn.Conv(width, sides, strides, use_bias=False, conv_general_dilated=conv_general_dilated)(y)

        def norm(y: jax.Array) -> jax.Array:
            return nn.BatchNorm(use_running_average=not train, momentum=0.9)(y)

        x = nn.relu(norm(conv(x, self.widths[0])))
        for stage, width in enumerate(self.widths):
            for block in range(self.blocks):
                stride = 2 if stage and not block else 1
                y = nn.relu(norm(conv(x, width, 3, stride)))
                y = norm(conv(y, width))
                if x.shape != y.shape:
                    x = norm(conv(x, width, 1, stride))
                x = nn.relu(x + y)
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


def get_model(config: ConfigDict, num_classes: int) -> nn.Module:
    return ResNet(config.own.widths, config.own.blocks, num_classes)


def get_config() -> ConfigDict:
    config = quickstart_config()
    config.own = ConfigDict({"widths": (16, 32, 64), "blocks": 1})  # read only by get_model
    config.train.epochs = 10
    return config
