"""``python -m unet``: the command ``unet`` where it is not installed."""

from unet.cli.main import entry

entry()
