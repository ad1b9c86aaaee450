"""The check of a config file, under the name that copied profiles of 0.1.0 import."""

from unet.config.yaml_file import check

__all__ = ["check"]
