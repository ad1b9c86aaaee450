"""``unet download``: lists the public datasets, downloads one, and gives a config that reads it."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

from unet.cli.stage import closed_pipe, run
from unet.config.public_datasets import config_of, name_in_config, public_names, public_set
from unet.errors import UserError
from unet.files import replacing
from unet.paths import Paths

log = logging.getLogger("unet")


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``unet download``."""
    p.description = (
        "Downloads a public dataset into a folder of its name, checks its hash, unpacks it, and "
        "prints a config that trains on it. Nothing is downloaded twice, and an interrupted "
        "download continues. Without a name it lists the datasets. Look at the licence first."
    )
    p.epilog = (
        "examples:\n"
        "  unet download                                      lists the datasets\n"
        "  unet download PhC-C2DH-U373                        into data/PhC-C2DH-U373\n"
        "  unet download PhC-C2DH-U373 ~/data -o u373.yaml    and writes the config\n"
        "  unet download NuInsSeg --from nuinsseg.zip         an archive fetched by hand\n"
    )
    p.add_argument("name", nargs="?", help="name of the dataset")
    p.add_argument(
        "folder", nargs="?", type=Path, default=Path("data"),
        help="the folder that holds the dataset's own: data_root of the config (default: data)",
    )  # fmt: skip
    p.add_argument(
        "--from", dest="source", default="", metavar="SOURCE",
        help="another address, or an archive that is here; for several archives the folder that "
        "holds them, or an address that ends in /",
    )  # fmt: skip
    p.add_argument("-o", "--config", type=Path, metavar="FILE", help="write the config to a file")
    p.add_argument("--force", action="store_true", help="replace that file if it exists")
    p.add_argument("--json", action="store_true", help="print JSON")
    p.set_defaults(log=None)


def command(args: argparse.Namespace) -> int:
    """Lists the datasets, or downloads one; returns the exit code."""
    if args.name is None:
        with closed_pipe():
            _list(args.json)
        return 0
    return run(args, _download)


def _download(args: argparse.Namespace, _: Paths) -> None:
    from unet.data.download import download_set

    public_set(args.name)  # an unknown name comes first
    if args.config is not None and args.config.exists() and not args.force:
        raise UserError(f"{args.config}: exists; write another name, or --force to replace it")
    found = download_set(args.name, args.folder, args.source)
    log.info("%s: %s", found.folder, "downloaded" if found.fetched else "is there already")
    text = config_of(args.name, str(args.folder))
    if args.config is not None:
        with replacing(args.config) as part:
            part.write_text(text, encoding="utf-8")
        log.info("wrote %s; next:", args.config)
        log.info("  unet check %s", args.config)
    with closed_pipe():
        if args.json:
            about = {"folder": str(found.folder), "fetched": found.fetched, "sha256": found.hashes}
            print(json.dumps(about, indent=1))  # noqa: T201 - this is the command's output
        elif args.config is None:
            log.info("a config that trains on it (-o FILE writes it):")
            print(text, end="")  # noqa: T201 - this is the command's output


def facts(name: str) -> dict[str, Any]:
    """What a list says of a set, as plain values."""
    found = public_set(name)
    return {
        "name": name,
        "shows": found.shows,
        "dims": found.dims,
        "mb": found.mb,
        "licence": found.licence,
        "cite": found.cite,
        "page": found.page,
        "by_hand": bool(found.by_hand),
        "config": f"config/examples/public/{name_in_config(name)}.yaml",
    }


def size_of(mb: float | None) -> str:
    """A size for people."""
    if mb is None:
        return "?"
    return f"{mb / 1000:.1f} GB" if mb >= 1000 else f"{mb:.0f} MB"


def _list(as_json: bool) -> None:
    rows = [facts(name) for name in public_names()]
    if as_json:
        print(json.dumps(rows, indent=1))  # noqa: T201 - this is the command's output
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "size", "kind", "shows", "licence")
    for row in rows:
        size = "by hand" if row["by_hand"] else size_of(row["mb"])
        table.add_row(row["name"], size, f"{row['dims']}D", row["shows"], row["licence"])
    Console().print(table)
