"""One run in its directory: evaluation at the log points, the best epoch, checkpoints, the summary."""

import contextlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from vgg_jax.console.errors import RunFailed, UserError
from vgg_jax.console.progress import Stopwatch, clock
from vgg_jax.datasets.load import Dataset
from vgg_jax.model.forward import batch_for, make_forward, predict
from vgg_jax.model.network import totals
from vgg_jax.model.scores import scores
from vgg_jax.runs import directory, origin, pictures
from vgg_jax.runs.checkpoint import Checkpoints
from vgg_jax.runs.log import Lines, Log, Record, at_chance, protocols
from vgg_jax.runs.tracking import Tracker
from vgg_jax.settings.fields import Config
from vgg_jax.training import sharding
from vgg_jax.training.processes import is_first
from vgg_jax.training.step import TrainState, make_recipe

_SPLITS = [f"{split}_{measure}" for split in ("train", "validation", "test") for measure in ("loss", "accuracy")]
_NAMES = {"step", "epoch", "learning_rate", "images_per_second", "seconds", *_SPLITS}  # of a record
Callback = Callable[[Record, Any], Mapping[str, float] | None]  # (a log point's record, variables) -> more numbers


class Run:
    """What one run holds besides its state. Use it in a `with`: `restore`, then log and save."""

    def __init__(self, config: Config, data: dict[str, Dataset], workdir: Path, callback: Callback | None = None):
        self.callback = callback
        train, placement = data["train"], sharding.place(config)
        self.config, self.data, self.workdir, self.placement = config, data, workdir, placement
        self.recipe = recipe = make_recipe(config, len(train.class_names), len(train))
        self.forward = placement.forward(make_forward(recipe.model, train.mean, train.std))
        self.checkpoints = Checkpoints(workdir)
        batch = batch_for(max(len(data["validation"]), len(data["test"])), config.data.image_size)
        self.eval_batch = -(-batch // placement.size) * placement.size
        self.loss = jax.jit(lambda logits, labels: recipe.loss(logits, labels).mean())
        self.criterion = "validation_accuracy" if len(data["validation"]) else "test_accuracy"
        self.unsaved_best: tuple[int, Any] | None = None
        self.tested: tuple[int, Any] = -1, None  # step and logits of the last evaluation on test images
        self.said_stuck = False
        self.drawn = 0  # records in curves.png
        self.seconds = 0.0  # taken by earlier sessions

    def restore(self, template: TrainState, step: int) -> TrainState:
        """The state saved at step, or template at step 0; drops a later best and later records."""
        state = self.checkpoints.restore(template, step) if step else template
        self.checkpoints.drop_best_after(step)  # only now, as a state that cannot be read ends here
        self.log = Log(self.workdir, step)
        self.probes = Lines(self.workdir / "probes.jsonl", step)
        self.tracker = Tracker(self.config, self.workdir)
        held = self.checkpoints.best_step()  # an earlier one, or none, where the best epoch's was damaged
        self.best = next((r[self.criterion] for r in self.log.records if r["step"] == held), -1.0)
        recorded = [r["seconds"] for r in self.log.records]
        self.seconds = max(directory.read_seconds(self.workdir), *recorded[-1:], 0.0) if step else 0.0
        return state

    def check_finite(self, sums: Mapping[str, Any]) -> None:
        """Raises: RunFailed when a loss since the last log point was not finite."""
        if sums["bad_step"] >= 0:
            self._diverged(f"the loss is not finite at step {sums['bad_step'] + 1}")

    def _diverged(self, what: str) -> NoReturn:
        advice = "Try a lower --config.optimizer.learning_rate in another --workdir"
        self._rescue(f"{what}. {advice}")
        steps = {"checkpoint": max(self.checkpoints.steps(), default=None), "best": self.checkpoints.best_step()}
        kept = ", ".join(f"the {name} of step {step}" for name, step in steps.items() if step is not None)
        raise RunFailed(f"{what}; {f'kept in {self.workdir}: {kept}' if kept else 'nothing is saved yet'}. {advice}")

    def _rescue(self, ending: str) -> None:
        """Save the best epoch and the curves before the run ends in an error.

        Raises: UserError, which says first why the run ends, when the disk refuses.
        """
        self.checkpoints.ending = f"{ending}. Besides, "
        self._save_best()
        self.checkpoints.wait()
        with contextlib.suppress(OSError):
            self._draw_curves()

    def _save_best(self) -> None:
        if self.unsaved_best is not None:
            self.checkpoints.save_best(*self.unsaved_best)
            self.unsaved_best = None

    def log_point(self, state: TrainState, sums: Mapping[str, Any], watch: Stopwatch) -> str:
        """Evaluate, write a record, remember the best; returns the line to show."""
        step = int(state.step)
        record: Record = {
            "step": step,
            "epoch": step // self.recipe.steps_per_epoch,
            "learning_rate": float(jnp.asarray(self.recipe.schedule(step - 1))),  # at the last step taken
            "train_loss": float(sums["loss"] / sums["count"]),
            "train_accuracy": float(sums["correct"] / sums["count"]),
        }
        with watch("evaluate"):
            for split in ("validation", "test"):
                if len(self.data[split]):
                    record |= self._evaluate(state, split, self.data[split])
        record |= {"images_per_second": watch.speed(), "seconds": watch.total()}
        if not all(math.isfinite(value) for value in record.values()):
            self._diverged(f"a loss is not finite after step {step}")
        if self.callback:
            with watch("callback"):
                record |= _more(self.callback(dict(record), state.variables))
        self.log.write(record)
        self.tracker.write(record)
        self._say_if_stuck(int(sums["count"]))
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

    def _say_if_stuck(self, images: int) -> None:
        """Say once that training is no better than chance, which is not an error; images: those of a record."""
        labels = self.data["train"].labels
        chance = float(np.bincount(labels).max() / len(labels))
        if not self.said_stuck and at_chance(self.log.records, chance, images) and is_first():
            self.said_stuck = True
            print(
                f"training accuracy is still at chance ({chance:.1%}) after epoch {self.log.records[-1]['epoch']}; "
                "what often helps: a lower config.optimizer.learning_rate, config.schedule.warmup_epochs, BatchNorm "
                "(config.model.batch_norm), another config.model.kernel_init",
                flush=True,
            )

    def _evaluate(self, state: TrainState, split: str, dataset: Dataset) -> Record:
        logits = predict(self.forward, state.variables, dataset.images, self.eval_batch)
        if split == "test":
            self.tested = int(state.step), logits
        return {
            f"{split}_loss": float(self.loss(logits, dataset.labels)),
            f"{split}_accuracy": scores(logits, dataset.labels)["accuracy"],
        }

    def _tta_accuracy(self, state: TrainState, tta: str) -> float:
        test, (step, logits) = self.data["test"], self.tested
        known = logits if step == int(state.step) else None
        logits = predict(self.forward, state.variables, test.images, self.eval_batch, tta, known)
        return scores(logits, test.labels)["accuracy"]

    def save(self, state: TrainState, seconds: float) -> None:
        """Save the best variables before the state, so that no state lacks its best; then seconds and curves.png."""
        if not _all_finite(state.variables):
            self._diverged(f"a parameter is not finite at step {int(state.step)}")
        self._save_best()
        self.checkpoints.save_latest(state)
        if is_first():
            directory.write(self.workdir / "seconds.txt", f"{seconds}\n")
        self._draw_curves()

    def _draw_curves(self) -> None:
        if is_first() and len(self.log.records) > self.drawn:
            pictures.curves(self.log.records, self.workdir / "curves.png")
            self.drawn = len(self.log.records)

    def summarise(self, state: TrainState, watch: Stopwatch) -> dict[str, Any]:
        """Write summary.json; returns it."""
        tta = self.config.train.tta
        with watch("evaluate"):
            views = {} if tta == "none" else {"tta": {"views": tta, "test_accuracy": self._tta_accuracy(state, tta)}}
            train_accuracy = self._evaluate(state, "train", self.data["train"].sample(10_000))["train_accuracy"]
        summary = {
            "protocols": protocols(self.log.records),
            **views,
            "train_accuracy": train_accuracy,  # in evaluation mode, on at most 10,000 images
            **totals(self.recipe.model, self.config.data.image_size),
            "seconds": watch.total(),
            "compiled_share": watch.compiled_share(),
            "last_session_seconds": {phase: round(seconds, 2) for phase, seconds in watch.spent.items()},
            "device": origin.devices(self.config),
        }
        if is_first():
            directory.write_summary(self.workdir, summary)
        return summary

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        """After an error, save the best epoch if possible; then close. The error is raised even if that save fails."""
        refused = isinstance(error, UserError) and not isinstance(error, RunFailed)  # by the disk, just now
        if error and not refused and jax.process_count() == 1:  # else others may be gone, who would have to save too
            with contextlib.suppress(Exception):
                self._rescue(f"{type(error).__name__}: {error}")
        self.checkpoints.close()
        if hasattr(self, "tracker"):
            self.log.close()
            self.tracker.close()


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))


def _more(found: Mapping[str, float] | None) -> Record:
    """What a callback adds to a record. Raises: RunFailed for all but finite numbers by names of their own."""
    try:
        more = {name: float(value) for name, value in dict(found or {}).items()}
    except (TypeError, ValueError, OverflowError) as error:
        raise RunFailed(f"the callback must return {{name: number}} or None ({error})") from None
    for name, value in more.items():
        if not isinstance(name, str) or name in _NAMES or not math.isfinite(value):
            raise RunFailed(f"the callback's {name!r}: {value} is no finite number by a name of its own")
    return more
