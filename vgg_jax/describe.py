"""Show a config's network without training it: layers, parameters, multiply-adds.

python -m vgg_jax.describe --config configs/bn_dropout.py [--config.FIELD=VALUE ...]
"""

from collections.abc import Sequence

from vgg_jax.console import errors, flags
from vgg_jax.settings import config as configs


def main(argv: Sequence[str]) -> None:
    given, overrides = flags.parse(argv, __doc__, {"--config": {"required": True, "help": "a config file"}})
    config = configs.load(given.config, overrides)
    from vgg_jax.model import network

    classes = 100 if config.data.name == "cifar100" else 10  # assumed, since the data are not loaded
    network.check(config, classes)
    print(f"{'layer':<12}{'parameters':>14}{'multiply-adds':>16}")
    for row in network.count(network.make_model(config, classes), config.data.image_size):
        print(f"{row.name:<12}{row.parameters:>14,}{row.multiply_adds:>16,}")
    print(f"{network.line(config, classes)}, for {classes} classes")


if __name__ == "__main__":
    errors.run(main)
