"""Make a run of somebody's PyTorch weights, or of a folder that `vgg-jax export` wrote.

python -m vgg_jax.import_weights weights.safetensors|weights.pt|FOLDER --workdir RUN [--config vgg16_bn]
    [--normalization NAME | MEAN MEAN MEAN STD STD STD] [--config.FIELD=VALUE ...]
"""

import shlex
from collections.abc import Sequence

from vgg_jax.console import errors, flags
from vgg_jax.console.errors import UserError
from vgg_jax.settings import code, config as configs


def main(argv: Sequence[str]) -> None:
    given, overrides = flags.parse(argv, __doc__, {
        "source": {
            "type": flags.path,
            "help": "a .safetensors, .pt or .pth file, a folder with one, or pretrained: the shipped one",
        },
        "--workdir": {"type": flags.path, "required": True, "help": "the run directory to make"},
        "--config": {"help": "the recipe whose network the weights are for; an exported folder brings its own"},
        "--normalization": {
            "nargs": "+", "help": "what the weights were trained with: chenyaofo, kuangliu, chenyaofo_cifar100, half, "
            "or six numbers, mean and std of red, green and blue; default: of the config's data",
        },
    })  # fmt: skip
    from vgg_jax.exchange.incoming import NORMALIZATIONS, SHIPPED, import_weights

    source = SHIPPED if str(given.source) == "pretrained" and not given.source.exists() else given.source
    colours = _colours(given.normalization, NORMALIZATIONS) if given.normalization else None
    facts = import_weights(source, given.workdir, given.config, colours, overrides)
    mean, std = (" ".join(f"{x:.4f}" for x in facts[name]) for name in ("mean", "std"))
    print(f"{given.source} fits: {given.workdir}, {len(facts['class_names'])} classes, mean {mean}, std {std}")
    own = ["--config", given.config] if given.config and code.is_needed(configs.load(given.config)) else []
    print(f"how good it is: {shlex.join(['vgg-jax', 'evaluate', '--workdir', str(given.workdir), *own])}")


def _colours(words: Sequence[str], names: dict) -> tuple[Sequence[float], Sequence[float]]:
    if len(words) == 1 and words[0] in names:
        return names[words[0]]
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) != 6 or not all(0 <= x <= 1 for x in numbers) or not all(numbers[3:]):
        raise UserError(
            f"--normalization takes one of {', '.join(names)}, or six numbers from 0 to 1, not {' '.join(words)}"
        )
    return numbers[:3], numbers[3:]


if __name__ == "__main__":
    errors.run(main)
