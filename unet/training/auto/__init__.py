"""Preset `auto`: chooses a network and its training sizes from the images.

In: sizes, spacing, intensities and objects of the training images, and the memory of the device.
Out: a plan (layers, patch, batch) with a reason for each decision, saved with the training.

Start with `choose.py`. `measure.py` measures the images, `memory.py` estimates the memory of a
step, `reasons.py` explains the decisions, `planned.py` makes or loads the plan of a training.
"""
