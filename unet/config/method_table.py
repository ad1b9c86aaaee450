"""What each method of making objects needs of a model; free of NumPy, for the config's checks."""

from __future__ import annotations

# Name of the method (its function is in `unet.prediction.objects.methods`) -> the head whose
# channels it reads (a key of `unet.config.heads.HEADS`); None: any that has a channel "background".
METHOD_HEADS: dict[str, str | None] = {
    "components": None,
    "grow": "border",
    "watershed": "distance",
}
