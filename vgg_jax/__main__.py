"""`python -m vgg_jax VERB` is `vgg-jax VERB`."""

from vgg_jax.cli import main

main()
