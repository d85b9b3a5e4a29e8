"""Show a config's network without training it: layers, parameters, multiply-adds.

python -m vgg_jax.describe --config configs/bn_dropout.py [--config.FIELD=VALUE ...]
"""

from collections.abc import Sequence

from vgg_jax import config as configs, errors, flags
from vgg_jax.models import VGG, LayerCount, count, totals
from vgg_jax.types import Config

CLASSES = {"cifar100": 100}  # the data set is not asked; 10 otherwise, as in CIFAR-10


def layers(config: Config, num_classes: int) -> list[LayerCount]:
    return count(VGG(num_classes=num_classes, **config.model), config.data.image_size)


def line(config: Config, num_classes: int) -> str:
    total = totals(VGG(num_classes=num_classes, **config.model), config.data.image_size)
    return (
        f"VGG {config.model.stages}, BatchNorm {config.model.batch_norm}: {total['parameters']:,} parameters, "
        f"{total['multiply_adds'] / 1e6:,.1f} M multiply-adds an image"
    )


def main(argv: Sequence[str]) -> None:
    given, overrides = flags.parse(argv, __doc__ or "", {"--config": {"required": True, "help": "a config file"}})
    config = configs.load(given.config, overrides)
    classes = CLASSES.get(config.data.name, 10)
    print(f"{'layer':<12}{'parameters':>14}{'multiply-adds':>16}")
    for row in layers(config, classes):
        print(f"{row.name:<12}{row.parameters:>14,}{row.multiply_adds:>16,}")
    print(line(config, classes))


if __name__ == "__main__":
    errors.run(main)
