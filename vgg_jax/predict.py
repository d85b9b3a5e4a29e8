"""Classify your own pictures with a trained run, or with the shipped network, which knows CIFAR-10's ten classes.

python -m vgg_jax.predict [--workdir RUN] picture.png [more.jpg ...]
"""

from collections.abc import Sequence

from vgg_jax.console import errors, flags
from vgg_jax.settings.fields import FIELDS


def main(argv: Sequence[str]) -> None:
    given, overrides = flags.parse(argv, __doc__, {
        "pictures": {"nargs": "+", "help": "PNG or JPEG files; scaled and centre-cropped as needed"},
        "--workdir": {"type": flags.path, "help": "a run directory; without one, the shipped network predicts"},
        "--tta": {
            "choices": FIELDS["train.tta"].choices, "default": "none",
            "help": "average over mirrored (and shifted) views",
        },
        **flags.OF_A_RUN,
    })  # fmt: skip
    from vgg_jax.evaluation.opening import load_or_shipped
    from vgg_jax.evaluation.trained import SURE
    from vgg_jax.settings import cache

    cache.use()
    run = load_or_shipped(given.workdir, given.checkpoint, overrides, given.config)
    unsure = False
    for file, probabilities in zip(given.pictures, run.predict(given.pictures, given.tta)):
        unsure |= probabilities.max() < SURE
        best = sorted(zip(probabilities, run.class_names), reverse=True)[:3]
        print(f"{file}: {', '.join(f'{name} {probability:.1%}' for probability, name in best)}")
    if unsure:
        print(
            f"Below {SURE:.0%} the network is not sure. It knows {len(run.class_names)} classes and always names one, "
            "also for a picture that shows none of them."
        )


if __name__ == "__main__":
    errors.run(main)
