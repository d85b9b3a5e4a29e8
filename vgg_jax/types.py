"""Names for types that several rooms share."""

from typing import Any

import jax

# A ConfigDict or FrozenConfigDict with the fields of configs/default.py, or one group of them;
# no type checker can know those.
Config = Any
# {"image": [N, H, W, 3], "label": [N] int32}
Batch = dict[str, jax.Array]
