"""Turns probabilities into objects, block by block, with the same result as on the whole image.

In: the channels of a network's head [K, (Z,) Y, X], read by region.
Out: instance labels [(Z,) Y, X], numbered from 1.

Start with `methods.py`, which lists the methods; each has its own file (`components.py`, `grow.py`,
`watershed.py`). `threshold.py` chooses the threshold on validation images.
"""
