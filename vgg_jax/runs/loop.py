"""The training loop around the compiled chunks: progress, log points, checkpoints, stop signals."""

import contextlib
import functools
import time
from collections.abc import Callable
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
from vgg_jax.runs import directory, pictures
from vgg_jax.runs.lock import lock
from vgg_jax.runs.log import Record
from vgg_jax.runs.run import Callback, Run
from vgg_jax.runs.weights import start_from
from vgg_jax.settings import code
from vgg_jax.settings.fields import Config
from vgg_jax.training import processes
from vgg_jax.training.optim import warmup_epochs
from vgg_jax.training.resizing import resized
from vgg_jax.training.step import TrainState, first_images, init_state, make_train_chunk, zero_sums

CHUNK_SECONDS = 2.0  # how long a chunk should take: the bar moves and stop signals are handled this often


class Probe(NamedTuple):
    """A measurement made in training before every `every`th step, recorded in probes.jsonl.

    measure(state, images and labels of the whole training set on the device, workdir) -> the record's fields.
    """

    every: int
    measure: Callable[[TrainState, Batch, Path], Record]


def fit(
    config: Config,
    data: dict[str, Dataset],
    workdir: Path,
    probe: Probe | None = None,
    callback: Callback | None = None,
) -> dict[str, Any]:
    """Train to the end, from the newest checkpoint if there is one; returns the summary.

    Raises:
      RunFailed: the loss is not finite; Busy when another process is training in workdir.
      Stopped: SIGINT or SIGTERM came; everything is saved.
    """
    # Before the first compilation: JAX's callbacks swallow a KeyboardInterrupt raised inside them.
    with stop_signals() as stop, lock(workdir), Run(config, data, workdir, callback) as run:
        recipe, placement = run.recipe, run.placement
        step = max(run.checkpoints.steps(), default=0)
        summary = directory.read_summary(workdir)
        if step == recipe.total_steps and summary:
            print("already finished")
            return summary
        directory.drop_summary(workdir)
        begin = placement.jit(functools.partial(init_state, recipe))
        state = begin(np.uint32(config.seed), first_images(config, data["train"]))
        if not step and config.train.start_from:
            state = start_from(config, workdir, state, placement)
            state = state.replace(opt_state=placement.jit(recipe.optimizer.init)(state.params))
        state = run.restore(state, step)
        return _Loop(run, probe).train(state, stop)


class _Loop:
    """What the loop keeps between chunks, except the state."""

    def __init__(self, run: Run, probe: Probe | None):
        self.run, self.probe = run, probe
        self.config, self.recipe, self.placement = run.config, run.recipe, run.placement
        self.train_set = run.data["train"]
        self.watch = Stopwatch(run.seconds)
        self.last_save = time.monotonic()

    def train(self, state: TrainState, stop: list[int]) -> dict[str, Any]:
        total, batch_size = self.recipe.total_steps, self.config.train.batch_size
        step = int(state.step)
        images = {"image": self.train_set.images, "label": self.train_set.labels}
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
                    sums = jax.device_get(state.sums)
                step += n
                self.run.check_finite(sums)
                self.watch.images += n * batch_size
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
        self.run.checkpoints.wait()
        where = self.run.workdir
        if step < total:
            raise Stopped(f"stopped at step {step} of {total} and saved in {where}; the same command goes on", asked)
        summary = self.run.summarise(state, self.watch)
        if asked or stop:
            raise Stopped(f"asked to stop, but {where} had just finished", asked or stop[0])
        return summary

    def _say_what_begins(self, step: int) -> None:
        asked, warmup = self.config.schedule.warmup_epochs, warmup_epochs(self.config)
        if warmup != asked and not code.of(self.config, "get_schedule"):
            print(f"a warm-up of {asked:g} epochs would fill the run; it is cut to {warmup:g}")
        begun = "resumed" if step else "started"
        print(f"{begun} at step {step} of {self.recipe.total_steps}, compiling", flush=True)

    def _compile(self, state: TrainState, on_device: Batch) -> Any:
        chunk = make_train_chunk(self.config, self.recipe, self.train_set, self.placement)
        with self.watch("compile") as lap:
            compiled = self.placement.jit(chunk, donate_argnums=0).lower(state, on_device, np.int32(1)).compile()
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
        records = self.run.probes.records
        if records and records[-1]["step"] >= step:
            return
        try:
            with self.watch("probe"):
                found = self.probe.measure(state, on_device, self.run.workdir)
                self.run.probes.write({"step": step} | found)
        except BaseException:
            with contextlib.suppress(Exception):  # the probe's own error is what is told
                self._save(state)
            raise

    def _is_log_point(self, step: int) -> bool:
        epoch, rest = divmod(step, self.recipe.steps_per_epoch)
        return rest == 0 and (epoch % self.config.train.eval_epochs == 0 or step == self.recipe.total_steps)

    def _log(self, state: TrainState, sums: Record, progress: Progress) -> TrainState:
        """Evaluate and write a record; returns the state with its sums at zero."""
        progress.say(self.run.log_point(state, sums, self.watch))
        return state.replace(sums=self.placement.replicate(zero_sums()))

    def _note(self, step: int, sums: Record, steps_per_second: float) -> str:
        examples = sums["count"]
        return (
            f"epoch {step / self.recipe.steps_per_epoch:.2f}/{self.config.train.epochs}  "
            f"loss {sums['loss'] / examples:.4f}  accuracy {sums['correct'] / examples:.2%}  "
            f"{steps_per_second * self.config.train.batch_size:,.0f} images/s"
        )

    def _save(self, state: TrainState) -> None:
        with self.watch("save"):
            self.run.save(state, self.watch.total())
        self.last_save = time.monotonic()

    def _draw_samples(self, images: Any) -> None:
        get_batch, (size, steps) = make_get_batch(self.config, self.train_set), self.recipe.small

        @jax.jit
        def first_batch(seed: jax.Array, images: Batch) -> Batch:
            key, start = jax.random.key(seed), jnp.int32(0)
            batch = get_batch(key, start, images, epoch_order(key, start, len(self.train_set)))
            return resized(batch, size) if steps else batch

        batch = jax.device_get(first_batch(np.uint32(self.config.seed), images))
        pictures.samples(batch, self.train_set, self.run.workdir / "samples.png")
