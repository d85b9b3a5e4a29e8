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
    """Make JAX cache its compiled programs there, also the many small ones: together they take two seconds."""
    jax.config.update("jax_compilation_cache_dir", str(directory() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
