"""The `vgg-jax` command: a verb, then that verb's own flags."""

import importlib
from collections.abc import Sequence

from vgg_jax import __version__
from vgg_jax.console import errors

VERBS = {
    "train": ("vgg_jax.main", "train a config, or resume its run"),
    "reproduce": ("vgg_jax.reproduce", "train a project's table over several seeds, and print it"),
    "sweep": ("vgg_jax.sweep", "try variations of a config, and rank them by held-out accuracy"),
    "landscape": ("vgg_jax.landscape.__main__", "why BatchNorm helps: train with and without it, and compare"),
    "evaluate": ("vgg_jax.evaluate", "score a run's checkpoint, with pictures"),
    "predict": ("vgg_jax.predict", "classify your own pictures with a run"),
    "export": ("vgg_jax.export", "write a run's weights for PyTorch, ONNX, the Hugging Face Hub or JAX elsewhere"),
    "import": ("vgg_jax.import_weights", "make a run of PyTorch weights, or of an exported folder"),
    "report": ("vgg_jax.write_report", "write one HTML page about runs, tables and landscape studies"),
    "demo": ("vgg_jax.demo", "see in the browser what a run sees in a picture"),
    "describe": ("vgg_jax.describe", "a config's layers, parameters and multiply-adds"),
    "doctor": ("vgg_jax.doctor", "check this machine, and say how to fix what is wrong"),
}


def main() -> None:
    errors.run(_dispatch)


def _dispatch(argv: Sequence[str]) -> None:
    verb, *rest = argv or ["--help"]
    if verb in ("-h", "--help"):
        print("vgg-jax VERB [flags]; vgg-jax VERB --help tells more\n")
        print("\n".join(f"  {name:<11}{what}" for name, (_, what) in VERBS.items()))
    elif verb == "--version":
        print(__version__)
    elif verb not in VERBS:
        raise errors.UserError(f"no verb {verb!r}; one of {', '.join(VERBS)}")
    else:
        importlib.import_module(VERBS[verb][0]).main(rest)
