"""Chooses which predicted images, or crops of them, a person should annotate next.

In: the segmentations of images without labels, and the images themselves.
Out: crops in the order in which to annotate them, each with its reason.

Start with `ranked_crops.py` (all steps) and `choose_crops.py` (the choice), then `crop_facts.py`
(doubt and objects of a crop) and `crop_features.py` (what it looks like). `unlabelled_images.py`
finds the images of finished results.
"""
