"""Where decoded images and compiled programs are kept between runs."""

import os
from pathlib import Path

import jax

from vgg_jax.console.flags import path


def directory() -> Path:
    """$VGG_JAX_CACHE, else vgg_jax in the user's cache directory."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return path(os.environ.get("VGG_JAX_CACHE") or f"{home}/vgg_jax")


def use() -> None:
    """Make JAX cache its compiled programs there, also the many small ones: together they take two seconds.

    JAX_COMPILATION_CACHE_DIR and JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS, where they are set, stay as they are.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(directory() / "xla"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
