"""Networks, their presets, their receptive fields, and how a network is applied to an array."""
