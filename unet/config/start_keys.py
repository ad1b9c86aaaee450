"""Keys of the ``train`` section for a training that starts from trained weights. Torch-free."""

from __future__ import annotations

# Formats of files to start from, by suffix. A new one also needs a line in `READERS` of
# `unet.models.read_model`.
START_FORMATS = {".pt": "model.pt", ".zip": "package of the BioImage Model Zoo (.zip)"}
