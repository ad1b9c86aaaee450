"""From a trained model to a segmentation, without seams, in bounded memory.

In: a model and the prepared store of a dataset.
Out: the predicted cores of all tiles, then probabilities, labels, masks and a table of objects.

Start with `tiles/predict.py` (the predict stage), then `stitch/stitch.py` (the stitch stage), which
uses `objects/methods.py` to make objects. `apply/applied_images.py` calls all stages for images
that no config lists.
"""
