"""What a trained run sees in your own pictures.

python -m vgg_jax.predict --workdir RUN picture.png [more.jpg ...]
"""

from collections.abc import Sequence

import jax
import numpy as np

from vgg_jax import data, errors, flags, metrics, rundir
from vgg_jax.checkpoint import load_model
from vgg_jax.forward import EVAL_BATCH, make_forward, predict


def main(argv: Sequence[str]) -> None:
    given, overrides = flags.parse(argv, __doc__ or "", {
        "pictures": {"nargs": "+", "help": "PNG or JPEG files; scaled and centre-cropped as needed"},
        "--workdir": {"type": flags.path, "required": True, "help": "a run directory"},
        "--checkpoint": {"choices": ("best", "latest"), "default": "latest"},
    })  # fmt: skip
    workdir = given.workdir
    config, facts = rundir.read_run(workdir, overrides)
    names = facts["class_names"]
    images = np.stack([data.read_picture(file, config.data.image_size, resize=True) for file in given.pictures])
    _, model, variables = load_model(workdir, given.checkpoint, config, len(names))
    forward = make_forward(model, facts["mean"], facts["std"])
    logits = predict(forward, jax.device_put(variables), images, min(EVAL_BATCH, len(images)))
    for file, row in zip(given.pictures, metrics.softmax(logits)):
        best = ", ".join(f"{names[i]} {row[i]:.1%}" for i in np.argsort(-row)[:3])
        print(f"{file}: {best}")


if __name__ == "__main__":
    errors.run(main)
