"""Reads the words that ``unet run`` hands to Snakemake, with Snakemake's own parser."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from unet.errors import UserError
from unet.planning.root import pipeline_folder

# Options with which Snakemake prints something else than a run, or prints more of it.
_OWN_OUTPUT = (
    "archive", "cleanup_metadata", "cleanup_shadow", "conda_cleanup_envs", "containerize",
    "d3dag", "dag", "debug_dag", "delete_all_output", "delete_temp_output",
    "detailed_summary", "drop_metadata", "edit_notebook", "export_cwl", "filegraph",
    "generate_unit_tests", "lint", "list_changes", "list_conda_envs", "list_input_changes",
    "list_params_changes", "list_rules", "list_target_rules", "list_untracked",
    "print_compilation", "printshellcmds", "report", "rulegraph", "summary", "touch",
    "verbose",
)  # fmt: skip
_HELP = {"-h", "--help", "-v", "--version"}


@dataclass(frozen=True)
class Words:
    """What the words ask for.

    Attributes:
        own_output: Snakemake's own output is wanted, as with ``--list-rules`` or ``--verbose``.
        dry_run, unlock: see Snakemake.
        whole: everything is made, not only some files or some rules.
        directory: Snakemake's working folder; "" for the current one.
        shared: those words that also hold for a run of another target: where, with which profile.
    """

    own_output: bool = False
    dry_run: bool = False
    unlock: bool = False
    whole: bool = True
    directory: str = ""
    shared: tuple[str, ...] = ()


def read_words(words: Sequence[str]) -> Words:
    """Reads the words.

    Raises:
        UserError: Snakemake does not know an option, or it is one that ``unet run`` sets itself.
    """
    if _HELP & set(words):
        return Words(own_output=True)
    from snakemake.cli import get_argument_parser

    printed = io.StringIO()
    try:
        with redirect_stderr(printed), redirect_stdout(printed):
            given = get_argument_parser().parse_args(list(words))
    except SystemExit:
        last = (printed.getvalue().strip().splitlines() or ["not understood"])[-1]
        text = last.partition("error: ")[2] or last
        raise UserError(
            f"{text}; the words after the config file go to Snakemake, which lists its options "
            "with: unet run CONFIG --help"
        ) from None
    if given.configfile:
        raise UserError(
            "--configfile: give all config files first, such as: unet run a.yaml b.yaml -n; "
            "later ones change earlier ones"
        )
    if given.snakefile:
        raise UserError(
            "--snakefile: unet run has a workflow of its own; call snakemake for another one"
        )
    _check_profile(given.workflow_profile)
    part = given.targets or given.until or given.omit_from or given.batch
    shared: list[str] = []
    for option in ("directory", "workflow_profile", "cores", "jobs", "executor", "conda_prefix"):
        if (value := getattr(given, option, None)) is not None:
            shared += [f"--{option.replace('_', '-')}", str(value)]
    for option in ("profile", "config", "software_deployment_method"):
        values = getattr(given, option, None) or ()
        if values:
            shared += [f"--{option.replace('_', '-')}", *map(str, values)]
    return Words(
        own_output=any(getattr(given, name, None) for name in _OWN_OUTPUT),
        dry_run=bool(given.dryrun),
        unlock=bool(given.unlock),
        whole=not part,
        directory=str(given.directory or ""),
        shared=tuple(shared),
    )


def _check_profile(name: str | None) -> None:
    """Snakemake ignores a workflow profile that does not exist, and would run everything here.

    Raises:
        UserError: there is no such profile.
    """
    if name in (None, "none"):
        return
    shipped = pipeline_folder() / "workflow" / "profiles"
    places = [Path(str(name)), Path("profiles", str(name)), shipped / str(name)]
    if not any(place.exists() for place in places):
        known = ", ".join(sorted(path.parent.name for path in shipped.glob("*/config.yaml")))
        raise UserError(
            f"--workflow-profile: no folder {name}; give its path, or one of those that come with "
            f"the workflow: {known}"
        )
