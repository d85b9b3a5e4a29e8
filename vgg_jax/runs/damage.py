"""Which checkpoints of a run are whole. Damaged ones are named and moved to `damaged/`, never deleted or used.

If no state is left to resume from, the best checkpoints, records and summary go there too.
"""

import json
import os
import re
import sys
from pathlib import Path

from vgg_jax.console.errors import RunFailed, UserError
from vgg_jax.runs import seal


def saved_steps(workdir: Path, which: str = "latest") -> set[int]:
    """Steps with a checkpoint in a run directory."""
    folder = workdir / which
    names = os.listdir(folder) if folder.is_dir() else []
    return {int(name) for name in names if re.fullmatch("0|[1-9][0-9]*", name) and (folder / name).is_dir()}


def newest_whole(workdir: Path, which: str) -> int:
    faults = _faults(workdir, which)
    whole = max((step for step, fault in faults.items() if not fault), default=None)
    if whole is None:
        step = max(faults)
        raise UserError(f"{workdir / which / str(step)} cannot be used ({faults[step]}), and there is no other")
    for step in [step for step in faults if step > whole]:
        print(f"{workdir / which / str(step)} cannot be used ({faults[step]}); using step {whole}", file=sys.stderr)
    return whole


def put_aside(workdir: Path, kind: str) -> None:
    """Move damaged checkpoints to workdir/damaged/."""
    faults = _faults(workdir, kind)
    lost = [step for step, fault in faults.items() if fault and not seal.is_cut_off(workdir / kind / str(step))]
    for step in sorted(step for step, fault in faults.items() if fault):
        folder = workdir / kind / str(step)
        print(f"{folder} is damaged ({faults[step]}); moved to {_move(workdir, folder)}", flush=True)
    if kind == "latest" and lost and all(faults.values()):
        raise RunFailed(
            f"no whole checkpoint is left in {workdir / kind}; the damaged ones are in {workdir / 'damaged'}, "
            "and the same command now starts from step 0"
        )


def begin_again(workdir: Path) -> None:
    """If no state is left to resume from, move the best checkpoints, records and summary to workdir/damaged/."""
    if saved_steps(workdir) or not (saved_steps(workdir, "best") or (workdir / "summary.json").exists()):
        return
    for name in ("best", "metrics.jsonl", "probes.jsonl", "summary.json"):
        if (workdir / name).exists():
            print(f"nothing to resume from in {workdir / 'latest'}: {name} moved to {_move(workdir, workdir / name)}")


def _move(workdir: Path, what: Path) -> Path:
    """Move a part of a run to workdir/damaged/, with the next number there; returns where it is now."""
    aside = workdir / "damaged"
    aside.mkdir(exist_ok=True)
    numbers = [int(found[1]) for name in os.listdir(aside) if (found := re.search(r"_(\d+)$", name))]
    return what.rename(aside / "_".join((*what.relative_to(workdir).parts, str(max(numbers, default=-1) + 1))))


def _faults(workdir: Path, kind: str) -> dict[int, str | None]:
    """What is wrong with each saved step, or None. Runs of versions without seals may lack them."""
    folders = {step: workdir / kind / str(step) for step in saved_steps(workdir, kind)}
    sealed = json.loads((workdir / "run.json").read_text()).get("sealed", False)
    unsealed = {step for step, folder in folders.items() if not sealed and seal.is_cut_off(folder)}
    return {step: None if step in unsealed else seal.fault(folder) for step, folder in folders.items()}
