"""Reads the words that ``unet run`` hands to Snakemake, with Snakemake's own parser."""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
# Options that choose jobs of the whole run; another target has none of these jobs.
_CHOOSE = {
    "allowed_rules", "batch", "force", "forceall", "forcerun", "omit_from", "prioritize",
    "report_after_run", "target_jobs", "targets", "until",
}  # fmt: skip
_HELP = {"-h", "--help", "-v", "--version"}


@dataclass(frozen=True)
class Words:
    """What the words ask for.

    Attributes:
        own_output: Snakemake's own output is wanted, as with ``--list-rules`` or ``--verbose``.
        dry_run, unlock: see Snakemake.
        whole: everything is made, not only some files or some rules.
        directory: Snakemake's working folder; "" for the current one.
        shared: those words that also hold for a run of another target: all but those that choose
            jobs. An option may take any number of words: put the target before them.
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
            parser = get_argument_parser()
            given = parser.parse_args(list(words))
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
    return Words(
        own_output=any(getattr(given, name, None) for name in _OWN_OUTPUT),
        dry_run=bool(given.dryrun),
        unlock=bool(given.unlock),
        whole=not part,
        directory=str(given.directory or ""),
        shared=tuple(_without_choice(parser, words)),
    )


class _Note(argparse.Action):
    """Collects the words of an option as they were given, before Snakemake converts them."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any,
        option_string: str | None = None,
    ) -> None:  # fmt: skip
        if self.dest in _CHOOSE:
            return
        name = next(name for name in self.option_strings if name.startswith("--"))
        if isinstance(values, str):
            values = [values]
        # With "=" a value may begin with "-".
        noted = [f"{name}={values[0]}"] if values and len(values) == 1 else [name, *(values or ())]
        namespace.noted.extend(noted)


def _without_choice(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """The words without those that choose jobs; ``parser`` has understood them."""
    noting = argparse.ArgumentParser(add_help=False)
    for action in parser._actions:
        if action.option_strings:
            noting.add_argument(
                *action.option_strings, dest=action.dest, nargs=action.nargs, action=_Note
            )
        else:
            noting.add_argument(action.dest, nargs=action.nargs, action=_Note)
    namespace = argparse.Namespace(noted=[])
    noting.parse_args(list(words), namespace)
    return list(namespace.noted)


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
