"""The training loop around the compiled chunks: progress, log points, checkpoints, stop signals.

It trains one run, or several in one program that differ only in their seed.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vgg_jax.console.errors import Stopped
from vgg_jax.console.progress import Progress, Stopwatch
from vgg_jax.console.stop import stop_signals
from vgg_jax.datasets.batches import Batch, epoch_order, make_get_batch
from vgg_jax.datasets.load import Dataset
from vgg_jax.model.forward import make_forward
from vgg_jax.runs import directory, pictures
from vgg_jax.runs.lock import lock
from vgg_jax.runs.log import Record
from vgg_jax.runs.resuming import common_step
from vgg_jax.runs.run import Run
from vgg_jax.runs.weights import start_from
from vgg_jax.settings import code
from vgg_jax.settings.fields import Config
from vgg_jax.training import processes, sharding
from vgg_jax.training.optim import warmup_epochs
from vgg_jax.training.resizing import resized
from vgg_jax.training.step import (
    Recipe,
    TrainState,
    first_images,
    init_state,
    make_recipe,
    make_train_chunk,
    zero_sums,
)
from vgg_jax.training.together import join, split, together

CHUNK_SECONDS = 2.0  # how long a chunk should take: the bar moves and stop signals are handled this often


class Probe(NamedTuple):
    """A measurement made in training before every `every`th step, recorded in probes.jsonl.

    measure(state, images and labels of the whole training set on the device, workdir) -> the record's fields.
    """

    every: int
    measure: Callable[[TrainState, Batch, Path], Record]


def fit(config: Config, data: dict[str, Dataset], workdir: Path) -> dict[str, Any]:
    """Train to the end, from the newest checkpoint if there is one; returns the summary.

    Raises:
      RunFailed: the loss is not finite, or another process is training in workdir.
      Stopped: SIGINT or SIGTERM came; everything is saved.
    """
    return fit_together([config], data, [workdir])[0]


def fit_together(
    configs: Sequence[Config], data: dict[str, Dataset], workdirs: Sequence[Path], probe: Probe | None = None
) -> list[dict[str, Any]]:
    """`fit` for configs that differ only in their seed, all in one program, each in its own directory.

    They resume from the newest step that all have saved.
    """
    config, train, placement = configs[0], data["train"], sharding.place(configs[0])
    recipe = make_recipe(config, len(train.class_names), len(train))
    forward = placement.forward(make_forward(recipe.model, train.mean, train.std))
    # Before the first compilation: JAX's callbacks swallow a KeyboardInterrupt raised inside them.
    with stop_signals() as stop, contextlib.ExitStack() as stack:
        for workdir in workdirs:
            stack.enter_context(lock(workdir))
        runs = [
            stack.enter_context(Run(c, data, workdir, recipe, forward, placement))
            for c, workdir in zip(configs, workdirs)
        ]
        step = common_step(runs)
        summaries = [directory.read_summary(workdir) for workdir in workdirs]
        if step == recipe.total_steps and all(summaries):
            print("already finished")
            return [summary for summary in summaries if summary]
        for workdir in workdirs:
            directory.drop_summary(workdir)
        images, init = first_images(config, train), placement.jit(functools.partial(init_state, recipe))

        def begin(run: Run) -> TrainState:
            state = init(np.uint32(run.config.seed), images)
            return state if step else start_from(run.config, run.workdir, state, placement)

        state = join([run.restore(begin(run), step) for run in runs])
        return _Loop(config, data, recipe, runs, probe).train(state, stop)


class _Loop:
    """What the loop keeps between chunks, except the state, which has a leading axis if there are several runs."""

    def __init__(self, config: Config, data: dict[str, Dataset], recipe: Recipe, runs: list[Run], probe: Probe | None):
        self.config, self.data, self.recipe, self.runs, self.probe = config, data, recipe, runs, probe
        self.placement = runs[0].placement
        self.watch = Stopwatch(max(run.seconds for run in runs))
        self.last_save = time.monotonic()

    def train(self, state: TrainState, stop: list[int]) -> list[dict[str, Any]]:
        total, batch_size = self.recipe.total_steps, self.config.train.batch_size
        step = int(split(state, len(self.runs))[0].step)
        images = {"image": self.data["train"].images, "label": self.data["train"].labels}
        on_device = self.placement.replicate(images)
        if step == 0 and processes.is_first():
            self._draw_samples(on_device if jax.process_count() == 1 else images)
        self._say_what_begins(step)
        run_chunk = self._compile(state, on_device)
        chunk, asked = 1, 0
        with contextlib.closing(Progress(total, "training", " steps", step)) as progress:
            while step < total and not asked:
                self._measure(state, on_device, step)
                n = min(chunk, self._until_pause(step))
                with self.watch("train") as lap:
                    state = run_chunk(state, on_device, np.int32(n))
                    sums = jax.device_get(split(state.sums, len(self.runs)))
                step += n
                for run, one in zip(self.runs, sums):
                    run.check_finite(one)
                self.watch.images += n * batch_size * len(self.runs)
                progress.update(n, self._note(step, sums, n / lap.seconds))
                if self._is_log_point(step):
                    state = self._log(state, sums, progress)
                grown = step == self.recipe.small[1]  # and steps take longer from now on
                chunk, late, asked = self._agree(1 if grown else n * CHUNK_SECONDS / lap.seconds, stop)
                if late:
                    self._save(state)
        if step == total:
            self._measure(state, on_device, step)
        self._save(state)
        self._wait()
        where = ", ".join(str(run.workdir) for run in self.runs)
        if step < total:
            raise Stopped(f"stopped at step {step} of {total} and saved in {where}; the same command goes on", asked)
        summaries = [run.summarise(one, self.watch) for run, one in zip(self.runs, split(state, len(self.runs)))]
        if asked or stop:
            raise Stopped(f"asked to stop, but {where} had just finished", asked or stop[0])
        return summaries

    def _say_what_begins(self, step: int) -> None:
        asked, warmup = self.config.schedule.warmup_epochs, warmup_epochs(self.config)
        if warmup != asked and not code.of(self.config, "get_schedule"):
            print(f"a warm-up of {asked:g} epochs would fill the run; it is cut to {warmup:g}")
        begun = "resumed" if step else "started"
        print(f"{begun} at step {step} of {self.recipe.total_steps}, compiling", flush=True)

    def _compile(self, state: TrainState, on_device: Batch) -> Any:
        chunk = make_train_chunk(self.config, self.recipe, self.data["train"], self.placement)
        function = together(chunk, len(self.runs))
        with self.watch("compile") as lap:
            compiled = self.placement.jit(function, donate_argnums=0).lower(state, on_device, np.int32(1)).compile()
        print(f"compiled in {lap.seconds:.1f} s", flush=True)
        return compiled

    def _agree(self, chunk: float, stop: list[int]) -> tuple[int, bool, int]:
        """(steps of the next chunk, whether to save now, the stop signal or 0), the same in all processes."""
        late = time.monotonic() - self.last_save > self.config.train.save_minutes * 60
        chunk, late, asked = processes.agree(max(1, round(min(chunk, 2**30))), late, *stop[:1] or (0,))
        return chunk, bool(late), asked

    def _until_pause(self, step: int) -> int:
        """Steps until the epoch ends, something is to be measured or the images grow."""
        periods = [self.recipe.steps_per_epoch] + ([self.probe.every] if self.probe else [])
        small = [self.recipe.small[1] - step] if step < self.recipe.small[1] else []
        return min([period - step % period for period in periods] + small)

    def _measure(self, state: TrainState, on_device: Batch, step: int) -> None:
        if self.probe is None or step % self.probe.every:
            return
        try:
            with self.watch("probe"):
                for run, one in zip(self.runs, split(state, len(self.runs))):
                    if not run.probes.records or run.probes.records[-1]["step"] < step:
                        run.probes.write({"step": step} | self.probe.measure(one, on_device, run.workdir))
        except BaseException:
            with contextlib.suppress(Exception):  # the probe's own error is what is told
                self._save(state)
            raise

    def _is_log_point(self, step: int) -> bool:
        epoch, rest = divmod(step, self.recipe.steps_per_epoch)
        return rest == 0 and (epoch % self.config.train.eval_epochs == 0 or step == self.recipe.total_steps)

    def _note(self, step: int, sums: Sequence[dict[str, Any]], steps_per_second: float) -> str:
        examples = max(sum(one["count"] for one in sums), 1)
        return (
            f"epoch {step / self.recipe.steps_per_epoch:.2f}/{self.config.train.epochs}  "
            f"loss {sum(one['loss'] for one in sums) / examples:.4f}  "
            f"accuracy {sum(one['correct'] for one in sums) / examples:.2%}  "
            f"{steps_per_second * self.config.train.batch_size * len(self.runs):,.0f} images/s"
        )

    def _log(self, state: TrainState, sums: Sequence[dict[str, Any]], progress: Progress) -> TrainState:
        """Write a record for every run; returns the state with its sums at zero."""
        timing = {"images_per_second": self.watch.speed(), "trained_together": len(self.runs)}
        states = split(state, len(self.runs))
        for run, one, its_sums in zip(self.runs, states, sums):
            line = run.log_point(one, its_sums, self.watch, timing)
            progress.say(line if len(self.runs) == 1 else f"seed {run.config.seed}  {line}")
        return join([one.replace(sums=self.placement.replicate(zero_sums())) for one in states])

    def _save(self, state: TrainState) -> None:
        with self.watch("save"):
            self._wait()  # so that no run is ever more than one save behind another
            for run, one in zip(self.runs, split(state, len(self.runs))):
                run.save(one, self.watch.total())
        self.last_save = time.monotonic()

    def _wait(self) -> None:
        for run in self.runs:
            run.checkpoints.wait()

    def _draw_samples(self, images: Any) -> None:
        dataset = self.data["train"]
        get_batch, (size, steps) = make_get_batch(self.config, dataset), self.recipe.small

        @jax.jit
        def first_batch(seed: jax.Array, images: Batch) -> Batch:
            key, start = jax.random.key(seed), jnp.int32(0)
            batch = get_batch(key, start, images, epoch_order(key, start, len(dataset)))
            return resized(batch, size) if steps else batch

        for run in self.runs:
            batch = jax.device_get(first_batch(np.uint32(run.config.seed), images))
            pictures.samples(batch, dataset, run.workdir / "samples.png")
