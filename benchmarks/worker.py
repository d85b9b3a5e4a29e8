"""A contender in a process of its own, which waits to be asked for turns. Both sides speak JSON, a line each."""

import contextlib
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.contenders import CONTENDERS
from vgg_jax.console.errors import UserError
from vgg_jax.settings import config as configs


class Worker:
    """The asking side; made, the contender is compiled and warm.

    Raises: UserError saying why the contender cannot run here.
    """

    def __init__(self, name: str, argv: Sequence[str], environment: dict[str, str]):
        command = [sys.executable, "-m", "benchmarks.train_step", "--worker", name, *argv]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )
        self._answer()
        first, warm = self.turn(), self.turn()
        self.losses, self.seconds = first["losses"] + warm["losses"], warm["seconds"]

    def turn(self, count: int = 1) -> dict[str, Any]:
        """So many times STEPS steps: their "seconds", the last "losses", and "peak_memory" in bytes."""
        with contextlib.suppress(BrokenPipeError):  # the missing answer says it
            print(count, file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"left_out": "it ended early; its own message stands above"}
        if "left_out" in answer:
            self.process.communicate()
            raise UserError(answer["left_out"])
        return answer


def serve(name: str, config: Any) -> None:
    """The answering side."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer

    def answer(**facts: Any) -> None:
        print(json.dumps(facts), file=answers, flush=True)

    try:
        turn = CONTENDERS[name].make(configs.override(config, {"model.dtype": CONTENDERS[name].dtype}))
    except UserError as error:
        return answer(left_out=str(error))
    answer()
    for count in sys.stdin:
        begun = time.perf_counter()
        losses = turn(int(count))
        answer(seconds=time.perf_counter() - begun, losses=losses, peak_memory=_peak_memory())


def _peak_memory() -> int:
    """Bytes this process has held at most: of the GPU if it uses one, else of the machine."""
    if "torch" in sys.modules:
        import torch  # pyright: ignore[reportMissingImports]

        if os.environ["TORCH_DEVICE"] == "cuda":
            return torch.cuda.max_memory_allocated()
    elif (stats := sys.modules["jax"].devices()[0].memory_stats()) and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"]
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
    status = Path("/proc/self/status").read_text()  # on Linux getrusage counts what the parent held, too
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])
