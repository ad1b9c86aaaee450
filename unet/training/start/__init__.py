"""Trainings that start from trained weights (`train.from`).

In: a `ModelFile`, the new network, the section `train`.
Out: the network with the weights that fit; what was taken (`start.json`); warnings.

Start with `fitted_weights.py`.
"""
