"""U-Net for microscopy: the package behind the workflow in `workflow/`.

In: a config (`unet.config`), raw images and labels (`unet.io`, `unet.data`).
Out: trained models, seamless segmentations, tables of objects and scores, reports.

The folders follow the data: config, io, data, export, models, training, prediction, evaluation,
planning, report, cli. Each imports only from those before it. Start with the script of a stage
(`scripts/train.py` and so on): it names the one function of the package that does the work.
"""

__version__ = "0.2.0"  # x-release-please-version
