"""``unet report``: where the pages of a run's report are, and all of them in one file."""

from __future__ import annotations

import argparse
from pathlib import Path

from unet.cli.stage import closed_pipe, run
from unet.errors import UserError
from unet.paths import Paths


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``unet report``."""
    p.description = (
        "Says where the pages of a run's report are: the overview and a page per dataset. With "
        "--single, writes all of them into one HTML file to send around; it needs no other file "
        "and no network. The pages are used as they are; nothing is computed again."
    )
    p.epilog = (
        "examples:\n"
        "  unet report results                       where the pages are\n"
        "  unet report results --single              write results/report-single.html\n"
        "  unet report results --single -o mail.html"
    )
    p.add_argument("results", type=Path, metavar="RESULTS", help="results folder of a run")
    p.add_argument("--single", action="store_true", help="write one file with all pages")
    p.add_argument(
        "-o", "--output", type=Path, metavar="FILE", dest="file",
        help="with --single: the file to write (default: report-single.html in RESULTS)",
    )  # fmt: skip


def command(args: argparse.Namespace) -> int:
    """Runs ``unet report``; returns the exit code."""
    return run(args, _report)


def _report(args: argparse.Namespace, _: Paths) -> None:
    from unet.report.single_page import SINGLE, report_pages, write_single

    if args.file is not None and not args.single:
        raise UserError("--output: only for --single; add --single")
    if args.single:
        file = args.file or args.results / SINGLE
        pages = write_single(args.results, file)
        parts = f"the overview and {len(pages) - 1} dataset{'s' if len(pages) != 2 else ''}"
        print(f"{file}  {parts}, {file.stat().st_size / 1e6:.1f} MB")  # noqa: T201 - the output
        return
    pages = report_pages(args.results)
    width = max(len(page.name) for page in pages)
    with closed_pipe():
        for page in pages:
            print(f"{page.name:<{width}}  {page.path}")  # noqa: T201 - this is the command's output
