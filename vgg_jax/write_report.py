"""Write one HTML page about runs: curves, accuracies, differences, mistakes, landscapes; it needs no network.

python -m vgg_jax.write_report RUN [RUN ...] [--out report.html]
"""

from collections.abc import Sequence

from vgg_jax.console import errors, flags


def main(argv: Sequence[str]) -> None:
    given, overrides = flags.parse(argv, __doc__, {
        "runs": {"nargs": "+", "type": flags.path, "metavar": "RUN",
                 "help": "a run directory, a table's folder or a landscape study"},
        "--out": {"type": flags.path, "default": "report.html", "help": "the HTML file; default report.html"},
    })  # fmt: skip
    if overrides:
        raise errors.UserError("report takes no --config fields")
    from vgg_jax.page.writing import report

    file = report(given.runs, given.out)
    print(f"written: {file} ({file.stat().st_size / 1e6:.1f} MB); open it in a browser")


if __name__ == "__main__":
    errors.run(main)
