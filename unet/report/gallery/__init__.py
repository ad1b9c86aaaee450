"""The gallery of a dataset's page: all test images, from the worst to the best.

In: the scores of the images, the prepared images, the segmentations of all models.
Out: cards (`gallery_cards.GalleryCard`) with scores, links and small pictures, which
``templates/sections/images.html.j2`` shows.
Start with: `gallery_cards.py`.
"""
