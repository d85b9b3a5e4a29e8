"""Write a run's weights for others: the Hugging Face Hub, PyTorch, ONNX, StableHLO.

python -m vgg_jax.export --workdir RUN --to safetensors|pytorch|onnx|stablehlo [--out DIR] [--checkpoint best|latest]
"""

from collections.abc import Sequence

from vgg_jax.console import errors, flags

FORMATS = ("safetensors", "pytorch", "onnx", "stablehlo")


def main(argv: Sequence[str]) -> None:
    given, overrides = flags.parse(argv, __doc__, {
        "--workdir": {"type": flags.path, "required": True, "help": "a run directory"},
        "--to": {"choices": FORMATS, "required": True, "help": "docs/weights.md describes each"},
        "--out": {"type": flags.path, "help": "the folder to write; default RUN/export/FORMAT"},
        **flags.OF_A_RUN,
        "--half": {"action": "store_true", "help": "of safetensors and pytorch: the arrays in float16"},
    })  # fmt: skip
    from vgg_jax.evaluation.opening import load

    run = load(given.workdir, given.checkpoint, overrides, given.config)
    folder = run.export(given.to, given.out, given.half)
    files = ", ".join(sorted(file.name for file in folder.glob("[!.]*")))
    print(f"{given.checkpoint} checkpoint (step {run.step}) in {folder}: {files}")


if __name__ == "__main__":
    errors.run(main)
