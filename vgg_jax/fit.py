"""The training loop around the compiled chunks: progress, logging, checkpoints, stop signals."""

import contextlib
import math
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from vgg_jax import plots, rundir
from vgg_jax.checkpoint import Checkpoints
from vgg_jax.data import Dataset
from vgg_jax.errors import Stopped, UserError
from vgg_jax.metrics import Log, Record, protocols, scores
from vgg_jax.models import count
from vgg_jax.progress import Progress, Stopwatch, clock
from vgg_jax.train import (
    EVAL_BATCH,
    Recipe,
    TrainState,
    epoch_order,
    init_state,
    make_forward,
    make_get_batch,
    make_recipe,
    make_train_chunk,
    predict,
    zero_sums,
)
from vgg_jax.types import Batch, Config

CHUNK_SECONDS = 2.0  # how long a chunk should take: as often the bar moves and a stop is heeded


def fit(config: Config, data: dict[str, Dataset], workdir: Path) -> dict[str, Any]:
    """Train to the end, from the newest checkpoint if there is one; returns the summary.

    Raises:
      UserError: the loss is not finite.
      Stopped: SIGINT or SIGTERM came; everything is saved.
    """
    train = data["train"]
    recipe = make_recipe(config, len(train.class_names), len(train))
    # Before the first compilation: JAX's callbacks swallow a KeyboardInterrupt that falls into them.
    with _stop_signals() as stop, contextlib.closing(Checkpoints(workdir)) as checkpoints:
        state = jax.jit(lambda: init_state(recipe, config.seed, config.data.image_size))()
        state = checkpoints.restore_latest(state) or state
        if state.step == recipe.total_steps and (summary := rundir.read_summary(workdir)):
            print("already finished")
            return summary
        with contextlib.closing(Log(workdir, int(state.step))) as log:
            return _Run(config, data, workdir, recipe, checkpoints, log).train(state, stop)


class _Run:
    """What a run holds between chunks besides its state."""

    def __init__(self, config, data, workdir: Path, recipe: Recipe, checkpoints: Checkpoints, log: Log):
        self.config, self.data, self.workdir, self.recipe = config, data, workdir, recipe
        self.checkpoints, self.log = checkpoints, log
        self.forward = make_forward(recipe.model, data["train"].mean, data["train"].std)
        self.eval_batch = min(EVAL_BATCH, max(len(data["validation"]), len(data["test"])))
        self.criterion = "validation_accuracy" if len(data["validation"]) else "test_accuracy"
        self.best = max((r[self.criterion] for r in log.records), default=-1.0)
        self.unsaved_best: tuple[int, Any] | None = None
        self.watch = Stopwatch(log.records[-1]["seconds"] if log.records else 0.0)
        self.last_save = time.monotonic()

    def train(self, state: TrainState, stop: list[int]) -> dict[str, Any]:
        step, total, per_epoch = int(state.step), self.recipe.total_steps, self.recipe.steps_per_epoch
        images = {"image": self.data["train"].images, "label": self.data["train"].labels}
        on_device = jax.device_put(images)
        if step == 0:
            self._draw_samples(state, on_device)
        print(f"{'resumed' if step else 'started'} at step {step} of {total}, compiling", flush=True)
        run_chunk = self._compile(state, on_device)
        chunk = 1
        with contextlib.closing(Progress(total, "training", " steps", step)) as progress:
            while step < total and not stop:
                n = min(chunk, per_epoch - step % per_epoch)
                with self.watch("train") as lap:
                    state = run_chunk(state, on_device, jnp.int32(n))
                    sums = jax.device_get(state.sums)
                step += n
                self._check_finite(sums)
                chunk = max(1, round(n * CHUNK_SECONDS / lap.seconds))
                self.watch.images += n * self.config.train.batch_size
                progress.update(n, self._note(step, sums, n / lap.seconds))
                if self._is_log_point(step):
                    progress.say(self._log(state, sums, step))
                    state = state.replace(sums=zero_sums())
                if time.monotonic() - self.last_save > self.config.train.save_minutes * 60:
                    self._save(state)
        self._save(state)
        self.checkpoints.wait()
        if step < total:
            raise Stopped(
                f"stopped at step {step} of {total} and saved in {self.workdir}; the same command goes on", stop[0]
            )
        return self._summarise()

    def _compile(self, state: TrainState, on_device: Batch) -> Any:
        with self.watch("compile") as lap:
            run_chunk = jax.jit(make_train_chunk(self.config, self.recipe, self.data["train"]), donate_argnums=0)
            compiled = run_chunk.lower(state, on_device, jnp.int32(1)).compile()
        print(f"compiled in {lap.seconds:.1f} s", flush=True)
        return compiled

    def _is_log_point(self, step: int) -> bool:
        epoch, rest = divmod(step, self.recipe.steps_per_epoch)
        return rest == 0 and (epoch % self.config.train.eval_epochs == 0 or step == self.recipe.total_steps)

    def _check_finite(self, sums: dict[str, Any]) -> None:
        if sums["bad_step"] >= 0:
            self._diverged(f"the loss is not finite at step {sums['bad_step'] + 1}")

    def _diverged(self, what: str) -> None:
        step = self.checkpoints.latest_step()
        saved = (
            f"the checkpoint of step {step} in {self.workdir} is kept" if step is not None else "nothing is saved yet"
        )
        raise UserError(f"{what}; {saved}. Try a lower --config.optimizer.learning_rate in another --workdir")

    def _note(self, step: int, sums: dict[str, Any], steps_per_second: float) -> str:
        examples = max(sums["count"], 1)
        return (
            f"epoch {step / self.recipe.steps_per_epoch:.2f}/{self.config.train.epochs}  "
            f"loss {sums['loss'] / examples:.4f}  accuracy {sums['correct'] / examples:.2%}  "
            f"{steps_per_second * self.config.train.batch_size:,.0f} images/s"
        )

    def _log(self, state: TrainState, sums: dict[str, Any], step: int) -> str:
        """Evaluate, write a record, remember the best; returns the line to show."""
        record: Record = {
            "step": step,
            "epoch": step // self.recipe.steps_per_epoch,
            "learning_rate": float(jnp.asarray(self.recipe.schedule(step - 1))),  # of the last step taken
            "train_loss": float(sums["loss"] / sums["count"]),
            "train_accuracy": float(sums["correct"] / sums["count"]),
        }
        with self.watch("evaluate"):
            for split in ("validation", "test"):
                if len(self.data[split]):
                    record |= self._evaluate(state, split)
        record |= {"images_per_second": self.watch.speed(), "seconds": self.watch.total()}
        if not all(math.isfinite(value) for value in record.values()):
            self._diverged(f"a loss is not finite after step {step}")
        self.log.write(record)
        if record[self.criterion] > self.best:
            self.best = record[self.criterion]
            self.unsaved_best = (step, jax.tree.map(jnp.copy, state.variables))
        return (
            f"epoch {record['epoch']}/{self.config.train.epochs}  step {step}  lr {record['learning_rate']:.3g}"
            + "".join(
                f"  {split} loss {record[f'{split}_loss']:.4f} accuracy {record[f'{split}_accuracy']:.2%}"
                for split in ("train", "validation", "test")
                if f"{split}_loss" in record
            )
            + f"  {record['images_per_second']:,.0f} images/s  {clock(record['seconds'])}"
        )

    def _evaluate(self, state: TrainState, split: str) -> Record:
        dataset = self.data[split]
        logits = predict(self.forward, state.variables, dataset.images, self.eval_batch)
        loss = float(jnp.mean(self.recipe.loss(jnp.asarray(logits), jnp.asarray(dataset.labels))))
        return {f"{split}_loss": loss, f"{split}_accuracy": scores(logits, dataset.labels)["accuracy"]}

    def _save(self, state: TrainState) -> None:
        """The best first, so that no state is on the disk whose best is not."""
        with self.watch("save"):
            if not _all_finite(state.variables):
                self._diverged(f"a parameter is not finite at step {int(state.step)}")
            if self.unsaved_best is not None:
                self.checkpoints.save_best(*self.unsaved_best)
                self.unsaved_best = None
            self.checkpoints.save_latest(state)
            if self.log.records:
                plots.curves(self.log.records, self.workdir / "curves.png")
        self.last_save = time.monotonic()

    def _draw_samples(self, state: TrainState, on_device: Batch) -> None:
        dataset, size = self.data["train"], self.config.train.batch_size
        order = epoch_order(state.key, jnp.int32(0), len(dataset))
        batch = make_get_batch(self.config, dataset)(state.key, state.step, on_device, order)
        n = min(64, size)
        names = [dataset.class_names[i] for i in batch["label"][:n]]
        plots.samples(batch["image"][:n], names, dataset, self.workdir / "samples.png")

    def _summarise(self) -> dict[str, Any]:
        rows = count(self.recipe.model, self.config.data.image_size)
        summary = {
            "protocols": protocols(self.log.records),
            "parameters": sum(row.parameters for row in rows),
            "multiply_adds": sum(row.multiply_adds for row in rows),
            "seconds": self.watch.total(),
            "last_session_seconds": {phase: round(seconds, 2) for phase, seconds in self.watch.spent.items()},
            "device": rundir.device(),
        }
        rundir.write_summary(self.workdir, summary)
        return summary


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that the first SIGINT or SIGTERM is put into; a second one acts as ever."""
    received: list[int] = []

    def receive(number: int, _: Any) -> None:
        received.append(number)
        for n, old in previous.items():
            signal.signal(n, old)

    previous = {n: signal.signal(n, receive) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for n, old in previous.items():
            signal.signal(n, old)
