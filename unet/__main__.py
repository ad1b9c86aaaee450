"""``python -m unet``: the same as the command ``unet``, without installing it."""

from unet.cli.main import entry

entry()
