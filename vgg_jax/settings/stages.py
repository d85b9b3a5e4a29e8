"""The tables of VGG's stages."""

# Output channels of every 3x3 convolution; each stage has one 2x2 max-pool, at its end unless pool="first".
# A, B, D, E are VGG-11, 13, 16, 19 (Simonyan & Zisserman 2015, table 1).
STAGES: dict[str, tuple[tuple[int, ...], ...]] = {
    "A": ((64,), (128,), (256,) * 2, (512,) * 2, (512,) * 2),
    "B": ((64,) * 2, (128,) * 2, (256,) * 2, (512,) * 2, (512,) * 2),
    "D": ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3),
    "E": ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4),
    "light": ((16,), (32,)),
    "speed": ((64,) * 2, (256,) * 2, (256,) * 2),  # after airbench94 (Jordan 2024)
}
