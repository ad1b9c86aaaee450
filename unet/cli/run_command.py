"""``unet run``: the workflow from any folder, with a progress bar and one line for a mistake."""

from __future__ import annotations

import argparse
import platform
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unet.cli.stage import EXIT_INTERRUPTED, EXIT_USER_ERROR, closed_pipe, escape_unprintable
from unet.errors import UserError
from unet.paths import Paths

if TYPE_CHECKING:
    from unet.cli.run_follow import Outcome
    from unet.cli.run_process import Stopping
    from unet.planning.snakemake_words import Words

EXIT_CTRL_C = 130
_CONFIG_ENDINGS = (".yaml", ".yml")


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``unet run``."""
    p.usage = "unet run [-h] [--where] CONFIG [CONFIG ...] [words for Snakemake ...]"
    p.description = (
        "Checks the images, then trains, predicts, evaluates and reports what the config file "
        "names; only what is missing or out of date runs. Works from any folder: relative paths "
        "start where you call it. It is Snakemake with the workflow of this package, all cores "
        "and the default profile; further words go to Snakemake as they are."
    )
    p.epilog = (
        "examples:\n"
        "  unet run my.yaml                     run everything\n"
        "  unet run my.yaml -n                  show which jobs would run, and why\n"
        "  unet run my.yaml --cores 4           use four cores\n"
        "  unet run my.yaml --forcerun stitch   repeat a stage and what follows\n"
        "  unet run my.yaml --workflow-profile slurm   submit the jobs to SLURM\n"
        "  unet run base.yaml more.yaml         several files; later ones change earlier ones\n"
        "\n"
        "exit codes: 0 done; 2 a mistake in files, config or words; 130 Ctrl-C; 143 another\n"
        "signal; 1 an internal error. After a stop or an error, the same command continues."
    )
    p.add_argument(
        "--where",
        nargs=0,
        action=_Where,
        help="print the workflow's folder (Snakefile, profiles) and exit",
    )
    p.add_argument(
        "words",
        nargs=argparse.REMAINDER,
        metavar="CONFIG",
        help="one or more config files (.yaml), then any words for Snakemake",
    )


class _Where(argparse.Action):
    """Prints the folder with the Snakefile."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from unet.planning.root import pipeline_folder

        print(pipeline_folder() / "workflow")  # noqa: T201 - this is the command's output
        parser.exit()


@dataclass(frozen=True)
class Call:
    """A call of ``unet run``.

    Attributes:
        configs: the config files.
        words: the words for Snakemake.
    """

    configs: tuple[Path, ...]
    words: tuple[str, ...]

    @classmethod
    def of(cls, given: Sequence[str]) -> Call:
        """Splits the words of a command line.

        Raises:
            UserError: no config file is named, or one cannot be read.
        """
        count = 0
        while count < len(given) and given[count].lower().endswith(_CONFIG_ENDINGS):
            count += 1
        if not count:
            named = f"{given[0]}: not a config file (.yaml)" if given else "no config file is named"
            raise UserError(f"{named}; write: unet run CONFIG [words for Snakemake]")
        from unet.config.yaml_file import read_yaml

        configs = tuple(Path(name) for name in given[:count])
        for config in configs:
            read_yaml(config)
        return cls(configs, tuple(given[count:]))

    def snakemake_words(self, words: Sequence[str]) -> list[str]:
        """All words for Snakemake."""
        from unet.planning.root import pipeline_folder

        snakefile = pipeline_folder() / "workflow" / "Snakefile"
        # An option must follow the config files, or the next word would be taken for one.
        configs = [str(path.absolute()) for path in self.configs]
        return ["--configfile", *configs, "--snakefile", str(snakefile), *words]

    def text(self, *more: str) -> str:
        """The command that repeats this call."""
        return shlex.join(["unet", "run", *map(str, self.configs), *(more or self.words)])


def command(args: argparse.Namespace) -> int:
    """Runs the workflow; returns the exit code."""
    escape_unprintable()
    try:
        if _system() == "Windows":
            raise UserError(
                "unet run needs Linux or macOS; on Windows run it in WSL or in the container "
                "(docs/cluster.md)"
            )
        return run(Call.of(args.words))
    except UserError as error:
        for line in str(error).splitlines():
            _say(f"error: {line.removeprefix('error: ')}")
        return EXIT_USER_ERROR


def run(call: Call) -> int:
    """Runs what the call asks for; returns the exit code.

    Raises:
        UserError: the words for Snakemake are not understood.
    """
    from unet.cli.run_process import stop_requests
    from unet.planning.snakemake_words import read_words

    words = read_words(call.words)
    with stop_requests() as stopping:
        if words.own_output:
            return _own_output(call, stopping)
        if words.unlock:
            return _unlock(call, words, stopping)
        if words.dry_run:
            return _dry_run(call, stopping)
        if words.whole and (code := _check(call, words, stopping)) is not None:
            return code
        outcome = _follow(call, call.words, "run", stopping)
        if code := _ended(call, words, outcome, stopping):
            return code
    if not outcome.total:
        _say("Nothing to do: all results are up to date.")
    if words.whole:
        _show_scores(outcome)
    return 0


def _own_output(call: Call, stopping: Stopping) -> int:
    """Leaves the console to Snakemake."""
    from unet.cli.run_follow import Follower
    from unet.cli.run_view import MessageView

    follower = Follower(MessageView("", sys.stderr))
    outcome = follower.follow(call.snakemake_words(call.words), stopping, own_output=True)
    return _ended(call, None, outcome, stopping) if stopping.count else outcome.code


def _check(call: Call, words: Words, stopping: Stopping) -> int | None:
    """Checks the images before anything is trained; the exit code if the run must not start."""
    # The target comes first: many options take any number of words.
    outcome = _follow(call, ["check", *words.shared], "check", stopping)
    failed = outcome.code != 0 and outcome.check_failed is not None
    if not failed and (code := _ended(call, words, outcome, stopping)):
        return code
    stops = []
    # What was checked before, and has not changed, need not be read again.
    if (paths := _paths(outcome)) and outcome.told and (outcome.done or failed):
        from unet.cli.check_command import show_checks, stopped

        names = outcome.told.checked
        with closed_pipe():
            show_checks(paths, names)
        stops = stopped(paths, names) if failed else []
    for line in stops:
        _say(f"error: {line}")
    if stops:
        return EXIT_USER_ERROR
    if outcome.check_failed and failed:
        _say(outcome.check_failed[1])
        return _ended(call, words, outcome, stopping)
    return None


def _follow(call: Call, words: Sequence[str], title: str, stopping: Stopping) -> Outcome:
    from unet.cli.run_follow import Follower
    from unet.cli.run_view import new_view

    view = new_view(title)
    try:
        return Follower(view).follow(call.snakemake_words(words), stopping)
    finally:
        view.close()


def _unlock(call: Call, words: Words, stopping: Stopping) -> int:
    """Unlocks the folder after a killed run."""
    folder = Path(words.directory or ".").resolve()
    if pid := _active(folder):
        raise UserError(f"{folder}: a run is still active here (process {pid}); nothing to unlock")
    outcome = _follow(call, call.words, "unlock", stopping)
    if code := _ended(call, words, outcome, stopping):
        return code
    _say(
        f"unlocked {folder}; continue with: {shlex.join(['unet', 'run', *map(str, call.configs)])}"
    )
    return 0


def _dry_run(call: Call, stopping: Stopping) -> int:
    """Prints which jobs would run, and why."""
    from unet.cli.run_follow import Follower
    from unet.cli.run_view import MessageView
    from unet.planning.snakemake_hooks import job_table

    outcome = Follower(MessageView("dry run", sys.stderr)).follow(
        call.snakemake_words(call.words), stopping
    )
    if code := _ended(call, None, outcome, stopping):
        return code
    with closed_pipe():
        if outcome.would_run:
            print(job_table(outcome.would_run), end="\n\n")  # noqa: T201
        if not outcome.total:
            print("Nothing to do: all results are up to date.")  # noqa: T201
        else:
            counts = ", ".join(f"{rule} {count}" for rule, count in outcome.planned.items())
            print(f"{_jobs(outcome.total)} would run: {counts}")  # noqa: T201
    return 0


def _ended(call: Call, words: Words | None, outcome: Outcome, stopping: Stopping) -> int:
    """Says why a run did not succeed; its exit code."""
    if outcome.code == 0:
        return 0
    if stopping.count:
        part = f" after {outcome.done} of {_jobs(outcome.total)}" if outcome.total else ""
        _say(f"stopped{part}; continue with: {call.text()}")
        return EXIT_CTRL_C if stopping.number == signal.SIGINT else EXIT_INTERRUPTED
    if outcome.locked:
        _say(f"error: {_lock_message(call, words)}")
        return EXIT_USER_ERROR
    if outcome.failed:
        _show_warnings(outcome)
        failed, total = len(outcome.failed), max(outcome.total, len(outcome.failed))
        _say(
            f"{_jobs(failed)} of {total} failed, {outcome.done} finished and stay; "
            f"when the cause is fixed, continue with: {call.text()}"
        )
    elif not outcome.exceptions:
        for line in outcome.reasons() or ["Snakemake ended without a message"]:
            _say(line if line.startswith(("error: ", "config: ")) else f"error: {line}")
    return EXIT_USER_ERROR if outcome.mistake else 1


def _lock_message(call: Call, words: Words | None) -> str:
    folder = Path(words.directory if words else ".").resolve()
    if pid := _active(folder):
        return f"{folder}: another run is active here (process {pid}); wait until it has ended"
    configs = shlex.join(map(str, call.configs))
    return (
        f"{folder}: locked by a run that was killed, or runs on another machine; if none runs: "
        f"unet run {configs} --unlock"
    )


def _active(folder: Path) -> int:
    """The process of the workflow that runs in this folder on this machine; 0 if there is none."""
    from unet.planning.resume import is_alive, remembered

    try:
        last = remembered(folder)
        return last.pid if is_alive(last) else 0
    except (UserError, ValueError):
        return 0


def _paths(outcome: Outcome) -> Paths | None:
    if outcome.told is None:
        return None
    here = outcome.told.folder == Path.cwd()
    return Paths(outcome.told.output if here else outcome.told.folder / outcome.told.output)


def _show_scores(outcome: Outcome) -> None:
    """The table of main scores, the warnings and the path of the report."""
    paths, told = _paths(outcome), outcome.told
    if paths is None or told is None or not paths.report_csv.is_file():
        return
    from unet.report.run_summary import print_summary
    from unet.report.score_tables import read_report

    with closed_pipe():
        print_summary(paths, read_report(paths.report_csv), told.tasks, told.models)


def _show_warnings(outcome: Outcome) -> None:
    if (paths := _paths(outcome)) is None or outcome.told is None:
        return
    from unet.data.dataset_warnings import warning_lines

    for line in warning_lines(paths, outcome.told.models):
        _say(line)


def _system() -> str:
    return platform.system()


def _jobs(count: int) -> str:
    return f"{count} job{'' if count == 1 else 's'}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - this is the command's output
