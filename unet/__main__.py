"""``python -m unet``: the same as the command ``unet``, without installing it."""

import sys

from unet.cli.main import entry

sys.exit(entry())
