"""Preset `auto`: chooses a network and its training sizes from the images.

In: sizes, spacing, intensities and objects of the training images, and the memory of the device.
Out: a plan (layers, patch, batch) with a reason for each decision, kept with the training.

Start with `choose.py`. `measure.py` looks at the images, `memory.py` estimates what a step needs,
`reasons.py` explains, `planned.py` is how the train stage uses it.
"""
