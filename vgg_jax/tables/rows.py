"""The rows of the two projects' tables, with the accuracies that the projects reported, and rows of your own."""

import ast
from pathlib import Path
from typing import NamedTuple

from vgg_jax.console.errors import UserError
from vgg_jax.settings import files
from vgg_jax.settings.fields import Config

Job = tuple[Config, Path]  # a run's config and its directory


class Row(NamedTuple):
    config: str  # the name of its file without .py
    name: str  # the project's name for it
    what: str
    reported: float | None  # the project's test accuracy in %
    own: Path | None = None  # a config file that is not shipped

    @property
    def file(self) -> Path:
        return self.own or files.SHIPPED / f"{self.config}.py"


def row_of(source: str) -> Row:
    """The row of a shipped recipe's name or a config file; the file's first line says what it is."""
    own = Path(source) if source.endswith(".py") else None
    row = Row(Path(source).stem, Path(source).stem, "", None, own)
    return row._replace(what=_first_line(row.file))


def _first_line(file: Path) -> str:
    try:
        said = ast.get_docstring(ast.parse(files.find(file).read_text())) or ""
    except (UserError, OSError, ValueError, SyntaxError):  # reading the config says what is wrong
        return ""
    return said.partition("\n")[0].rstrip(".").replace("|", "/")


TABLES = {
    "project1": (
        Row("bn_dropout", "BN + dropout", "VGG16 with BatchNorm and dropout", 89.89),
        Row("dropout", "dropout only", "without BatchNorm", 88.67),
        Row("bn", "BN only", "without dropout", 88.73),
        Row("plain_tied", "neither", "without both; equal convolutions share their kernels", 86.65),
        Row("plain", "neither, all kernels", "without both; each convolution has its own kernel", None),
    ),
    "project2": (
        Row("vgg_a", "VGG_A", "baseline", 75.77),
        Row("vgg_a_l2", "VGG_A + L2", "weight decay 1e-4 as an L2 gradient in Adam", 74.98),
        Row("vgg_a_mse", "VGG_A + squared error", "squared error against one-hot targets", None),
        Row("vgg_a_bn", "VGG_BatchNorm", "conv-BN-ReLU", 80.43),
        Row("vgg_a_bn_sgd", "VGG_BatchNorm + SGD", "SGD 1e-3, momentum 0.9", 75.53),
        Row("vgg_a_dropout", "VGG_Dropout", "dropout 0.5 twice in the head", None),
        Row("vgg_a_dropout_bn", "VGG_Dropout_BN", "conv-ReLU-BN, dropout 0.5 twice in the head", 81.66),
        Row("vgg_light", "VGG_Light", "conv 16, conv 32, head 128-128-10", 68.71),
        Row("vgg_a_dropout_bn_res", "VGG_Dropout_BN_Res", "every convolution a residual block", 81.96),
        Row("vgg_a_leaky_relu", "VGG_A_LeakyReLU", "slope 0.1, Kaiming normal", 82.16),
        Row("vgg_a_dropout_bn_res_leaky", "VGG_Dropout_BN_Res_Leaky", "residual blocks, slope 0.1", None),
    ),
}
OLD_NAMES = {"seed1": "project1", "seed2": "project2"}  # earlier names of the tables
