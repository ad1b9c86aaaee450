"""``unet config``: prints a config with all its keys, or the schema that editors use."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from unet.cli.stage import closed_pipe, run
from unet.errors import UserError
from unet.paths import Paths

if TYPE_CHECKING:
    from unet.config.run import Config


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``unet config``."""
    p.description = (
        "Checks a config file and prints it with all keys and their values. A comment marks what "
        "differs from the defaults. The output is a config file that gives the same results."
    )
    p.epilog = (
        "examples:\n"
        "  unet config my.yaml                   all keys\n"
        "  unet config my.yaml --changed         only what differs from the defaults\n"
        "  unet config --schema > schema.json    for an editor: see docs/commands.md"
    )
    p.add_argument(
        "config", type=Path, nargs="?", metavar="CONFIG", help="config file (YAML or JSON)"
    )
    p.add_argument(
        "--changed", action="store_true", help="print only what differs from the defaults"
    )
    p.add_argument(
        "--schema",
        action="store_true",
        help="print the JSON schema of a config and do nothing else",
    )


def command(args: argparse.Namespace) -> int:
    """Runs ``unet config``; returns the exit code."""
    return run(args, _show)


def _show(args: argparse.Namespace, _: Paths) -> None:
    import json

    from unet.config.schema import schema
    from unet.config.shown_config import as_yaml

    if args.schema:
        if args.config is not None or args.changed:
            raise UserError("--schema: write it alone; the schema is the same for every config")
        with closed_pipe():
            print(json.dumps(schema(), indent=1, ensure_ascii=False))  # noqa: T201
        return
    if args.config is None:
        raise UserError("CONFIG: missing; give a config file, such as config/config.yaml")
    text = as_yaml(_merged(args.config), changed=args.changed)
    with closed_pipe():
        print(text, end="")  # noqa: T201 - this is the command's output


def _merged(file: Path) -> Config:
    """The config that a run with this file has: a file without datasets is merged over the
    default config of this folder."""
    from unet.config.load import load
    from unet.config.run import merge
    from unet.config.yaml_file import read_yaml

    raw, base = read_yaml(file), Path("config/config.yaml")
    if not raw.get("datasets") and base.is_file():
        raw = merge(read_yaml(base), raw)
    return load(raw)
