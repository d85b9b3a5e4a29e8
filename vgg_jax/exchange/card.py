"""The model card: the README.md of a folder for the Hugging Face Hub."""

import json
import shlex
from typing import Any

from vgg_jax.exchange.outgoing import Outgoing, architecture, flat, portable
from vgg_jax.settings import again, config as configs

_DATA = {"cifar10": ("CIFAR-10", "uoft-cs/cifar10"), "cifar100": ("CIFAR-100", "uoft-cs/cifar100")}
_PYTORCH = "In PyTorch, with vgg_jax installed, `vgg_jax.torch.network.load(FOLDER)` gives the network. "
_GIVEN = "# not by this command alone: the data were given in Python, to vgg_jax.train(config, workdir, data)\n"
_TEXT = """---
{metadata}
---

# {title}

A {kind} that sorts pictures of {size}x{size} pixels into {classes} classes: {names}. It has {parameters:,}
parameters. vgg_jax {version} or newer can read this folder:

```
vgg-jax import FOLDER --workdir run{file}
vgg-jax predict --workdir run{file} picture.png
```

{pytorch}`model.safetensors` has {layout}. `config.json` has the pictures'
size, mean and standard deviation in `pretrained_cfg`.

## How good it is

{scores}

## How it was trained

```
{command}
```

{origin}

## What it is not for

It names one of its {classes} classes whatever a picture shows. A low probability means that it is not sure; a high one
does not mean that the picture is of any of the classes. It was scored on pictures of the same source as those that it
was trained on; on others it is worse.
"""


def card(out: Outgoing) -> str:
    """The README.md."""
    names, facts = [str(name) for name in out.facts["class_names"]], out.facts
    return _TEXT.format(
        metadata="\n".join(f"{key}: {json.dumps(value)}" for key, value in metadata(out).items()),
        title=_title(out),
        kind="network" if out.is_own else "VGG network",
        file=f" --config {shlex.quote(configs.flatten(out.config)['code.file'])}" if out.is_own else "",
        pytorch="" if out.is_own else _PYTORCH,
        size=out.config.data.image_size,
        classes=out.classes,
        names=", ".join(names[:20]) + (", ..." if len(names) > 20 else ""),
        parameters=sum(array.size for name, array in flat(out).items() if name.startswith("params/")),
        version=facts.get("vgg_jax", "(version not recorded)"),
        layout=("the arrays as Flax has them" if out.is_own else "the arrays under PyTorch's names and in its layout")
        + (", in float16" if out.half else ""),
        scores=_scores(out),
        command=_GIVEN * bool(facts.get("data_given"))
        + (again.command(configs.flatten(portable(out.config))) or "(by a version with other fields)"),
        origin=_origin(out),
    )


def metadata(out: Outgoing) -> dict[str, Any]:
    """The card's metadata block; every value is also valid as JSON. It names no license: that is for you to choose."""
    shown, hub = _data(out)
    found: dict[str, Any] = {
        "library_name": "vgg_jax",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "vgg", "jax", "flax"] + ([] if out.is_own else ["pytorch"]),
    }
    if hub:
        found["datasets"] = [hub]
    if out.record and "test_accuracy" in out.record:
        name = f"accuracy of one run on {out.facts['sizes']['test']:,} test images, {_chosen(out)}"
        metric = {"type": "accuracy", "value": out.record["test_accuracy"], "name": name}
        data = {"name": shown, "type": hub or shown, "split": "test"}
        task = {"type": "image-classification", "name": "image classification"}
        result = {"task": task, "dataset": data, "metrics": [metric]}
        found |= {"metrics": ["accuracy"], "model-index": [{"name": _title(out), "results": [result]}]}
    return found


def _title(out: Outgoing) -> str:
    return f"{architecture(out)} on {_data(out)[0]}"


def _data(out: Outgoing) -> tuple[str, str]:
    """(the data's name, theirs on the Hub); whoever brings data may leave config.data.name as it was."""
    name = out.config.data.name
    own = out.facts.get("data_given") or configs.flatten(out.config).get("code.data")
    return ("own data", "") if own else _DATA.get(name, (name, ""))


def _chosen(out: Outgoing) -> str:
    if out.chosen_on == "test":
        return "best epoch on these same images"
    if out.chosen_on:
        return f"epoch chosen on {out.chosen_on} images"
    return f"after epoch {out.record['epoch']}" if out.record else ""


def _scores(out: Outgoing) -> str:
    if not out.record:
        return "No measurement is recorded with these weights."
    rows = ["| images | n | accuracy (%) | loss | which epoch |", "|---|---|---|---|---|"]
    for split in ("test", "validation"):
        if f"{split}_accuracy" in out.record:
            number = out.facts["sizes"][split]
            accuracy, loss = out.record[f"{split}_accuracy"], out.record[f"{split}_loss"]
            rows.append(f"| {split} | {number:,} | {100 * accuracy:.2f} | {loss:.4f} | {_chosen(out)} |")
    optimistic = " It was chosen on the test images, so its accuracy on them is optimistic."
    text = "\n".join(rows) + "\n\nOne run, one seed." + (optimistic if out.chosen_on == "test" else "")
    return "\n\n".join([text, *_measured(out)])


def _measured(out: Outgoing) -> list[str]:
    """Test-time augmentation and calibration, as `evaluate` has found them."""
    tta, calibrated = (out.report or {}).get("tta"), (out.report or {}).get("calibrated")
    lines = []
    if tta:
        lines.append(f"Averaged over the views `{tta['views']}` of each test image: {100 * tta['accuracy']:.2f} %.")
    if out.calibration:
        lines.append(
            f"Probabilities are softmax(logits / {out.temperature:.4f}). This temperature was fitted on "
            f"{out.calibration['images']:,} {out.calibration['split']} images."
        )
        if out.report and calibrated:
            lines[-1] += (
                " It brings the expected calibration error on the test images from "
                f"{out.report['calibration_error']:.4f} to {calibrated['calibration_error']:.4f}."
            )
    return lines


def _origin(out: Outgoing) -> str:
    facts = out.facts
    if (origin := facts.get("origin")) and "device" not in facts:  # else it is an export of ours, come back
        return f"These weights were not trained by that command: they were imported from `{origin['file']}`."
    versions = ", ".join(f"{name} {version}" for name, version in facts.get("packages", {}).items())
    return f"Step {out.step:,}; commit {facts.get('commit')}; on {facts.get('device')}; {versions}."
