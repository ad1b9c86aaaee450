"""Applies trained networks to images that no config lists: `unet predict`, and `import unet`.

In: model files, and images (files, or arrays).
Out: `segmentation.zarr`, `masks/*.tif`, `objects.csv`, as of the workflow's stages.

Start with `applied_images.py`, which calls the stages one after the other. `chosen_settings.py`
says which settings they get; `result_folder.py` refuses folders that hold something else.
"""
