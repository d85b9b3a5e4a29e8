"""The VGG-on-CIFAR-10 laboratory in JAX."""

__version__ = "0.1.0"
