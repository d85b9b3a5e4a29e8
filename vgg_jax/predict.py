"""Classify your own pictures with a trained run.

python -m vgg_jax.predict --workdir RUN picture.png [more.jpg ...]
"""

from collections.abc import Sequence

from vgg_jax.console import errors, flags


def main(argv: Sequence[str]) -> None:
    given, overrides = flags.parse(argv, __doc__ or "", {
        "pictures": {"nargs": "+", "help": "PNG or JPEG files; scaled and centre-cropped as needed"},
        "--workdir": {"type": flags.path, "required": True, "help": "a run directory"},
        "--checkpoint": {"choices": ("best", "latest"), "default": "latest", "help": "default latest"},
        "--config": {"help": flags.OWN_CONFIG},
    })  # fmt: skip
    from vgg_jax.evaluation.trained import load

    run = load(given.workdir, given.checkpoint, overrides, given.config)
    for file, probabilities in zip(given.pictures, run.predict(given.pictures)):
        best = sorted(zip(probabilities, run.class_names), reverse=True)[:3]
        print(f"{file}: {', '.join(f'{name} {probability:.1%}' for probability, name in best)}")


if __name__ == "__main__":
    errors.run(main)
