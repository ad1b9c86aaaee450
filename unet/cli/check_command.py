"""``unet check``: looks at a config's images and labels before anything is trained."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unet.cli.arguments import positive
from unet.cli.check_work import cores, judged, surveyed, this_machine, write_checked
from unet.cli.stage import EXIT_USER_ERROR, closed_pipe, run
from unet.errors import UserError, did_you_mean
from unet.paths import Paths

if TYPE_CHECKING:
    from unet.config.run import Config
    from unet.data.survey.facts import DatasetSurvey
    from unet.planning.estimated_jobs import Machine
    from unet.report.checked import Checked

log = logging.getLogger("unet")


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``unet check``."""
    p.description = (
        "Looks at images and labels before anything is trained: what was understood, what looks "
        "wrong and what to write instead, values that the images suggest, and the time, memory "
        "and disk space that a run will take. Writes only OUTPUT/DATASET/check.html and "
        "check.json."
    )
    p.epilog = (
        "examples:\n"
        "  unet check my.yaml                        all datasets of a config\n"
        "  unet check images-and-masks               a folder, without a config\n"
        "  unet check my.yaml --dataset nuclei       one of them\n"
        "  unet check my.yaml --json > found.json    for scripts\n\n"
        "exit code: 0; 2 if a finding must stop a run, or after a mistake in the config"
    )
    p.add_argument(
        "config", type=Path, metavar="CONFIG|FOLDER",
        help="a config file; or a folder, which is checked with the config that `unet init` would "
        "write",
    )  # fmt: skip
    p.add_argument(
        "--dataset", action="append", metavar="NAME", help="check only this one (may be repeated)"
    )
    p.add_argument(
        "--output", type=Path, metavar="FOLDER",
        help="folder for the pages (default: the config's output; for a folder check-NAME)",
    )  # fmt: skip
    p.add_argument("--json", action="store_true", help="print everything as JSON, and nothing else")
    p.add_argument(
        "--threads", type=positive, default=cores(),
        help="number of CPU threads (default: %(default)s)",
    )  # fmt: skip
    p.set_defaults(log=None)


def command(args: argparse.Namespace) -> int:
    """Runs ``unet check``; the exit code is 2 if a finding must stop a run."""
    stops: list[str] = []

    def work(args: argparse.Namespace, _: Paths) -> None:
        stops.extend(_check(args))

    # Before the config is read the folder is only named in messages.
    args.folder = args.output
    args.output = args.folder or Path()
    before = log.level
    # What was found is printed; the stages' own lines would only repeat it.
    log.setLevel(logging.WARNING)
    try:
        return run(args, work) or (EXIT_USER_ERROR if stops else 0)
    finally:
        log.setLevel(before)


def _check(args: argparse.Namespace) -> Sequence[str]:
    """Checks, writes the pages and prints; returns a line per finding that must stop a run."""
    from unet.report.check_console import print_checked, stop_lines

    config, machine = _config(args)
    paths = Paths(Path(config.output))
    found = checks(config, _names(config, args.dataset), args.threads, machine)
    for checked in found.values():
        write_checked(paths, config, checked)
    with closed_pipe():
        if args.json:
            plain = {name: each.to_json() for name, each in found.items()}
            print(json.dumps(plain, indent=1))  # noqa: T201 - this is the command's output
        else:
            print_checked(found, {name: paths.check_html(name) for name in found})
    return stop_lines(found)


def _config(args: argparse.Namespace) -> tuple[Config, Machine | None]:
    """The config; and this machine, if its speed had to be measured for the config."""
    from unet.config.load import load, load_file

    if args.config.is_dir():
        import yaml

        from unet.cli.init_command import config_text
        from unet.data.survey.recognise import dataset_name

        machine = this_machine("auto", args.threads)
        # Not the output folder of the config that `unet init` would write, whose page may differ.
        output = args.folder or Path(f"check-{dataset_name(args.config.resolve().name)}")
        text = config_text(args.config, str(output), flops=machine.flops)
        return load(yaml.safe_load(text)), machine
    config = load_file(args.config)
    if args.folder is not None:
        config = config.model_copy(update={"output": str(args.folder)})
    return config, None


def _names(config: Config, wanted: Sequence[str] | None) -> list[str]:
    """The datasets to check; those that a stage is yet to make are named and left out."""
    from unet.planning.sources import Sources

    known = list(config.datasets)
    for name in wanted or ():
        if name not in known:
            listed = f"{', '.join(sorted(known))}{did_you_mean(name, known)}"
            raise UserError(f"--dataset: no dataset {name!r}; there are: {listed}")
    found, paths = [], Paths(Path(config.output))
    for name in wanted or known:
        if members := list(config.datasets[name].weights):
            log.warning("%s: joins %s; the check is of these", name, " and ".join(members))
        elif config.datasets[name].synthetic is not None and not paths.raw_done(name).exists():
            log.warning("%s: not generated yet; `snakemake check` generates and checks it", name)
        elif not Sources(config, paths).is_there(name):
            data = config.datasets[name]
            log.warning(
                "%s: not downloaded yet; `snakemake check` downloads and checks it, or `unet "
                "download %s` first", name, data.download,
            )  # fmt: skip
        else:
            found.append(name)
    return found


def checks(
    config: Config, datasets: Sequence[str], threads: int, machine: Machine | None = None
) -> dict[str, Checked]:
    """Checks datasets in this process; reads their files and writes nothing.

    Args:
        threads: number of CPU threads.
        machine: None: its speed is measured.
    """
    if not datasets:
        return {}
    surveys: dict[str, DatasetSurvey] = {name: surveyed(config, name, threads) for name in datasets}
    machine = machine or this_machine(config.device, threads)
    return {name: judged(config, name, surveys, machine) for name in datasets}


# What `unet run`, the workflow and `make demo` show.


def show_checks(paths: Paths, datasets: Sequence[str]) -> bool:
    """Prints what the checks of a run found, from its check.json files.

    Returns:
        whether a finding must stop the run.

    Raises:
        UserError: a check.json is missing or damaged.
    """
    from unet.report.check_console import print_checked

    found = _read(paths, datasets)
    print_checked(found, {name: paths.check_html(name) for name in found})
    return any(checked.stops for checked in found.values())


def stopped(paths: Paths, datasets: Sequence[str]) -> list[str]:
    """A line for each finding that must stop a run, from its check.json files."""
    from unet.report.check_console import stop_lines

    return list(stop_lines(_read(paths, datasets)))


def _read(paths: Paths, datasets: Sequence[str]) -> Mapping[str, Checked]:
    from unet.report.checked import read_checked

    return {name: read_checked(paths.check_json(name)) for name in datasets}
