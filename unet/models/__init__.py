"""Networks, the files that hold them, and how a network is applied to an array.

In: an architecture of `unet.config.presets`, or a `model.pt`.
Out: a torch module that takes images [N, C, (Z,) Y, X] and gives scores [N, K, (Z,) Y, X].

Start with `unet.py`, which reads like the figure of the paper, and `build.py`, the list of kinds
of networks. `model_file.py` saves and loads, `inference.py` applies.
"""
