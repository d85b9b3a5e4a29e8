"""A trained run, to predict with and to score."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from vgg_jax.console.errors import UserError
from vgg_jax.console.flags import path
from vgg_jax.datasets.folder import MAX_PIXELS, Arrays, read_picture
from vgg_jax.datasets.load import Dataset, labelled, load as load_data
from vgg_jax.evaluation import report, temperature
from vgg_jax.exchange import incoming
from vgg_jax.exchange.export import export
from vgg_jax.exchange.outgoing import Outgoing
from vgg_jax.model import scores
from vgg_jax.model.forward import make_features, make_forward, predict
from vgg_jax.model.network import make_model
from vgg_jax.runs import directory, log
from vgg_jax.settings import code, config as configs
from vgg_jax.settings.check import check_value, does_something
from vgg_jax.settings.fields import FIELDS, Config

Pictures = np.ndarray | str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
SURE = 0.5  # of a probability; below it the network doubts


class TrainedRun:
    """A run's checkpoint, loaded.

    Attributes:
      workdir: the run directory.
      config: the config it was trained with.
      checkpoint: "latest" or "best".
      step: the optimizer steps done.
      model: the Flax Linen module.
      variables: its variables, {"params", "batch_stats"}, on the default device.
      class_names: one name per class.
      mean, std: per channel, by which images are normalised, in units of [0, 1].
    """

    def __init__(
        self,
        workdir: Path,
        config: Config,
        facts: Mapping[str, Any],
        checkpoint: str,
        step: int,
        variables: Any,
        given: Mapping[str, Dataset] | None = None,
    ):
        self._given = given  # the data, where the caller brought them
        self.workdir, self.config, self.checkpoint, self.step, self._facts = workdir, config, checkpoint, step, facts
        self.class_names, self.mean, self.std = tuple(facts["class_names"]), tuple(facts["mean"]), tuple(facts["std"])
        self.model: nn.Module = make_model(config, len(self.class_names))
        self.variables = jax.device_put(variables)
        of_the_run = self.model, self.mean, self.std
        self._forward, self._features = make_forward(*of_the_run), make_features(*of_the_run)  # compiled when called
        self._shipped = workdir == incoming.SHIPPED  # with the package, into which nothing is written
        held_out = self._facts.get("sizes", {}).get("validation")
        self._chosen_on = report.chosen_on(workdir, step, held_out) if checkpoint == "best" else None

    def __repr__(self) -> str:
        return f"TrainedRun({str(self.workdir)!r}, {self.checkpoint} at step {self.step})"

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl, one for each log point: losses as config.loss says, accuracies in [0, 1]."""
        return log.read(self.workdir)

    @property
    def summary(self) -> dict[str, Any] | None:
        """summary.json; None for a run that is not finished."""
        return directory.read_summary(self.workdir)

    def predict(self, pictures: Pictures, tta: str = "none") -> np.ndarray:
        """Probabilities [N, classes] float32: softmax(logits / self.temperature).

        Args:
          pictures: uint8 [N, H, W, 3] of the size that the network was trained on, or PNG and JPEG files, which are
            scaled and centre-cropped to it.
          tta: "flip" or "flip_shift" averages the logits over these views; the temperature is that of single views.

        Raises: UserError for a file that cannot be read, an array of another dtype or shape, or a network that had
          diverged.
        """
        return scores.softmax(self._finite_logits(self.pixels(pictures), tta) / self.temperature).astype(np.float32)

    def logits(self, pictures: Pictures, tta: str = "none") -> np.ndarray:
        """Logits [N, classes] float32, without the temperature; arguments and errors as `predict`."""
        return self._finite_logits(self.pixels(pictures), tta)

    def features(self, pictures: Pictures) -> np.ndarray:
        """The input of the last dense layer [N, F] float32, in evaluation mode; pictures as in `predict`."""
        return predict(self._features, self.variables, self.pixels(pictures))

    def pixels(self, pictures: Pictures, most: int = MAX_PIXELS) -> np.ndarray:
        """What the network is shown of pictures (as `predict` takes them): uint8 [N, H, W, 3] of its size.

        Raises: UserError as `predict`, also for a file of more pixels than most.
        """
        size = self.config.data.image_size
        if isinstance(pictures, (str, os.PathLike)):
            pictures = [pictures]
        pictures = np.asarray(pictures) if hasattr(pictures, "__array__") else pictures
        if not isinstance(pictures, np.ndarray):
            if not pictures or not all(isinstance(file, (str, os.PathLike)) for file in pictures):
                raise UserError("predict takes an array of images, or the names of picture files")
            as_trained = self.config.data.name == "folder" and self.config.data.resize
            shrink = self.config.data.shrink if as_trained else "area"
            return np.stack([read_picture(file, size, shrink, most) for file in pictures])
        if pictures.dtype != np.uint8 or pictures.shape[1:] != (size, size, 3) or not len(pictures):
            given = f"{pictures.dtype} {list(pictures.shape)}"
            raise UserError(f"the run takes one or more uint8 images [N, {size}, {size}, 3], not {given}")
        return pictures

    @property
    def temperature(self) -> float:
        """What the logits are divided by before they become probabilities; 1.0 before `calibrate`."""
        found = temperature.read(self.workdir, self.checkpoint, self.step)
        return found["temperature"] if found else 1.0

    def calibrate(self) -> float:
        """Fit the temperature on the run's validation images and store it in calibration.json; returns it.

        Raises: UserError when the run held out no images, or classifies all of them right.
        """
        if self._shipped:
            raise UserError("the shipped network is calibrated already")
        dataset = self.data("validation")
        found = temperature.fit(self._finite_logits(dataset.images), dataset.labels)
        stored = {"step": self.step, "temperature": found, "split": "validation", "images": len(dataset)}
        temperature.write(self.workdir, self.checkpoint, stored)
        return found

    def evaluate(
        self, split: str | Dataset | Arrays = "test", tta: str = "none", out: str | os.PathLike[str] | None = None
    ) -> dict[str, Any]:
        """Score the checkpoint.

        Args:
          split: "train", "validation" or "test" of the run's data; a Dataset of its classes; or (images, labels).
          tta: "flip" or "flip_shift" adds the scores of the logits averaged over these views.
          out: a folder for the report as JSON and its pictures; nothing is written without one.

        Returns: the report: accuracies in [0, 1], cross-entropy in nats, expected calibration error (15 bins of equal
          width), accuracy by class, confusion matrix [C, C] (rows are the true classes), all of the raw logits; after
          `calibrate` also the calibrated scores.

        Raises: UserError when the split is empty or differs from the run's, a Dataset has images of another size or
          another number of classes, or when the network had diverged.
        """
        name = split if isinstance(split, str) else "given"
        dataset = self.data(split) if isinstance(split, str) else self._checked(split)
        logits = self._finite_logits(dataset.images)
        found = {
            "checkpoint": self.checkpoint,
            "chosen_on": self._chosen_on,
            "step": self.step,
            "split": name,
            "images": len(dataset),
            **report.score(logits, dataset),
        }
        if fitted := temperature.read(self.workdir, self.checkpoint, self.step):
            found["calibrated"] = fitted | report.calibrated(logits / fitted["temperature"], dataset.labels)
        if origin := self._facts.get("origin"):
            found["origin"] = origin
        if tta != "none":
            found["tta"] = {"views": tta, **scores.scores(self._logits(dataset.images, tta, logits), dataset.labels)}
        if out is not None:
            folder = Path(out)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{self.checkpoint}_{name}.json").write_text(json.dumps(found, indent=2) + "\n")
            report.draw(logits, dataset, found, folder, f"{self.checkpoint}_{name}")
        return found

    def export(self, to: str, out: str | os.PathLike[str] | None = None, half: bool = False) -> Path:
        """Write the checkpoint for others; returns the folder.

        Args:
          to: "safetensors" (a folder for the Hugging Face Hub), "pytorch", "onnx" or "stablehlo".
          out: the folder, which is made; default export/<to> in the run directory (of the shipped network, here).
          half: of safetensors and pytorch: the arrays in float16.

        Raises: UserError when a package is missing that the format needs, or the network cannot be written in it.
        """
        leaving = Outgoing(
            self.config,
            self.variables,
            self._facts,
            self.checkpoint,
            self.step,
            record=next((record for record in self.metrics if record["step"] == self.step), None),
            chosen_on=self._chosen_on,
            calibration=temperature.read(self.workdir, self.checkpoint, self.step),
            report=report.read(self.workdir / "evaluation" / f"{self.checkpoint}_test.json", self.step),
            half=half,
        )
        its_folder = Path() if self._shipped else self.workdir
        return export(leaving, to, Path(out) if out else its_folder / "export" / to)

    def data(self, split: str) -> Dataset:
        """A split of the run's own data. Raises: UserError when it is empty, missing or another."""
        if split not in ("train", "validation", "test"):
            raise UserError(f"there is no split {split!r}; take train, validation or test")
        there = self.config.data.data_dir if does_something("data.data_dir", configs.flatten(self.config)) else ""
        if not self._given and there and not code.of(self.config, "get_data") and not path(there).is_dir():
            raise UserError(
                f"the images of the run in {self.workdir} were in {self._facts.get('data_dir') or there}, which is not "
                "there any more; --config.data.data_dir=DIR (data.data_dir in overrides) says where they are now"
            )
        lost = self._facts.get("data_given") and not self._given
        hint = "; they were given from Python, and evaluate takes them, too" if lost else ""
        try:
            dataset = (self._given or load_data(self.config))[split]
        except UserError as error:
            raise UserError(f"{error}{hint}") from None
        if not len(dataset):
            why = hint or " (config.data.validation_size was 0)" * (not self.config.data.validation_size)
            raise UserError(f"{self.workdir} has no {split} images{why}")
        if dataset.fingerprint != self._facts["fingerprint"][split]:
            where = hint or "; --config.data.data_dir=DIR says where the right ones are"
            raise UserError(f"the {split} images are not those of the run (the fingerprint differs){where}")
        return dataset

    def _checked(self, given: Dataset | Arrays) -> Dataset:
        dataset = given if isinstance(given, Dataset) else labelled("the data to evaluate", given, self.class_names)
        if len(dataset.class_names) != len(self.class_names):
            raise UserError(f"the images are of {len(dataset.class_names)} classes, the run of {len(self.class_names)}")
        if tuple(dataset.class_names) != self.class_names and sorted(dataset.class_names) == sorted(self.class_names):
            raise UserError(f"the images have the run's classes in another order: {', '.join(dataset.class_names)}")
        self.pixels(dataset.images)
        return dataset

    def _finite_logits(self, images: np.ndarray, tta: str = "none") -> np.ndarray:
        logits = self._logits(images, tta)
        if not np.isfinite(logits).all():
            raise UserError(
                f"step {self.step} of {self.workdir} had diverged: its outputs are not finite; try --checkpoint best"
            )
        return logits

    def _logits(self, images: np.ndarray, tta: str = "none", known: np.ndarray | None = None) -> np.ndarray:
        check_value("train.tta", FIELDS["train.tta"], tta)
        return predict(self._forward, self.variables, images, tta=tta, known=known)
