"""Score a run's checkpoint on the data set that its config names.

python -m vgg_jax.evaluate [--workdir RUN] [--checkpoint best|latest] [--split test] [--tta flip] [--out DIR]
"""

import os
import sys
from collections.abc import Sequence

from vgg_jax.console import errors, flags
from vgg_jax.settings.fields import FIELDS


def main(argv: Sequence[str]) -> None:
    given, overrides = flags.parse(argv, __doc__, {
        "--workdir": {"type": flags.path, "help": "a run directory; without one, the shipped network"},
        **flags.OF_A_RUN,
        "--split": {"choices": ("train", "validation", "test"), "default": "test", "help": "default test"},
        "--tta": {
            "choices": FIELDS["train.tta"].choices, "default": "none",
            "help": "also score the average over mirrored (and shifted) images",
        },
        "--out": {"type": flags.path, "help": "folder of the JSON and the pictures; default RUN/evaluation"},
        "--calibrate": {
            "action": "store_true",
            "help": "first fit a temperature on the validation images, for the probabilities of predict",
        },
    })  # fmt: skip
    from vgg_jax.evaluation import report
    from vgg_jax.evaluation.opening import load_or_shipped
    from vgg_jax.settings import cache

    cache.use()
    run = load_or_shipped(given.workdir, given.checkpoint, overrides, given.config)
    if given.calibrate:
        run.calibrate()
    folder = given.out or (given.workdir and given.workdir / "evaluation")  # of the shipped network nothing is written
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)  # refused before any work, if it is
    elif folder and not os.access(folder if folder.exists() else given.workdir, os.W_OK):
        print(f"{folder} cannot be written to; --out=DIR would keep pictures and JSON", file=sys.stderr)
        folder = None
    print(report.text(run.evaluate(given.split, given.tta, out=folder)))
    if folder:
        print(f"pictures and {given.checkpoint}_{given.split}.json in {folder}")


if __name__ == "__main__":
    errors.run(main)
