"""Networks, the files they are saved in, and how to apply a network to an array.

In: an architecture of `unet.config.presets`, or a `model.pt`.
Out: a torch module that maps images [N, C, (Z,) Y, X] to scores [N, K, (Z,) Y, X].

Start with `unet.py`, which reads like the figure of the paper, and `build.py`, which lists the
kinds of networks. `model_file.py` saves and loads models, `inference.py` applies them.
"""
