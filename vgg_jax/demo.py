"""See in the browser what a run sees in a picture, also several runs side by side, or the shipped network.

python -m vgg_jax.demo [RUN ...] [--port 7860]
"""

import sys
from collections.abc import Sequence

from vgg_jax.console import errors, flags

PORT = 7860


def main(argv: Sequence[str]) -> None:
    given, overrides = flags.parse(argv, __doc__, {
        "runs": {"nargs": "*", "type": flags.path, "metavar": "RUN", "help": "run directories, at most 4"},
        **flags.OF_A_RUN,
        "--port": {"type": int, "default": PORT, "help": f"default {PORT}"},
        "--share-on": {"metavar": "HOST", "help": "listen on this address of the machine, and not only for itself; "
                       "there is no password"},
    })  # fmt: skip
    from vgg_jax.demo_page import serving

    host = given.share_on or serving.LOOPBACK
    serving.check(given.runs, host, given.port)
    from vgg_jax.evaluation.opening import load_or_shipped
    from vgg_jax.settings import cache

    cache.use()
    runs = [load_or_shipped(run, given.checkpoint, overrides, given.config) for run in given.runs or [None]]
    print("compiling, some seconds for each run ...", flush=True)
    with serving.serving(runs, host, given.port) as address:
        if given.share_on:
            print(f"warning: whoever can reach {host} on port {given.port} can use the demo; there is no password",
                  file=sys.stderr)  # fmt: skip
        print(f"the demo is at {address} until you press Ctrl-C", flush=True)
        serving.wait()


if __name__ == "__main__":
    errors.run(main)
