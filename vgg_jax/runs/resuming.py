"""The step from which runs that train in one program can resume together."""

from collections.abc import Sequence
from pathlib import Path

from vgg_jax.console.errors import RunFailed
from vgg_jax.runs.damage import saved_steps
from vgg_jax.runs.run import Run
from vgg_jax.settings.fields import Config

Job = tuple[Config, Path]  # a run's config and its directory


def in_step(jobs: Sequence[Job]) -> list[list[Job]]:
    """Groups of jobs that can resume together: they have a saved step in common, or no saved step."""
    groups: list[tuple[set[int], list[Job]]] = []
    for job in jobs:
        steps = saved_steps(job[1]) or {0}
        for common, members in groups:
            if common & steps:
                common &= steps
                members.append(job)
                break
        else:
            groups.append((steps, [job]))
    return [members for _, members in groups]


def common_step(runs: Sequence[Run]) -> int:
    """The newest step that all runs can resume from. A kill can leave one run a save ahead of another."""
    saved = [run.checkpoints.steps() for run in runs]
    common = set.intersection(*(steps if len(steps) > 1 else steps | {0} for steps in saved))
    if not common:
        listed = ", ".join(f"{run.workdir} at {max(steps, default=0)}" for run, steps in zip(runs, saved))
        raise RunFailed(f"these runs have no step in common to go on from together: {listed}; train each by itself")
    return max(common)
