"""Why does BatchNorm help? Measures of the loss around and along training (docs/landscape.md)."""
