"""Shared code of the command lines: arguments, logging, and one-line errors."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, TypeVar

from unet.cli.arguments import Parser, checked
from unet.errors import UserError, did_you_mean, is_out_of_memory, one_line
from unet.paths import Paths, fold_number, folder_name

if TYPE_CHECKING:
    from unet.config.tracked import Settings

log = logging.getLogger("unet")

S = TypeVar("S", bound="Settings")

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 143
# Set if the workflow itself shows why a job ended, from the job's log (see unet.cli.failures).
CAUSE_SHOWN = "UNET_CAUSE_SHOWN"


class LogFile(logging.FileHandler):
    """A job's log file. If the disk is full, lines are lost, but no stack trace is printed."""

    incomplete = False

    def handleError(self, record: logging.LogRecord) -> None:
        self.incomplete = True


class Interrupted(Exception):
    """The job was asked to stop and has saved its state; the next run continues from there."""


def parser(
    stage: str, description: str, *, model: bool = False, fold: bool = False, dataset: bool = True
) -> Parser:
    """A parser with the arguments that all stages share.

    The workflow passes the stage's settings with ``--settings``. A user passes ``--config``
    instead: the same settings are taken from that config file.
    """
    p = Parser(prog=f"python scripts/{stage}.py", description=description)
    p.set_defaults(stage=stage)
    p.add_argument(
        "--output", type=Path,
        help="the run's output folder (default: output of --config; with --settings, results)",
    )  # fmt: skip
    if dataset:
        p.add_argument(
            "--dataset", required=True, type=checked(folder_name),
            help="name of the dataset in the config",
        )  # fmt: skip
    if model:
        p.add_argument(
            "--model", required=True, type=checked(folder_name),
            help="name of the model in the config",
        )  # fmt: skip
    if fold:
        p.add_argument(
            "--fold", required=True, type=checked(fold_number), help="0, 1, ...; or ensemble"
        )
    source = p.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", type=Path, help="config file to take the settings from")
    source.add_argument("--settings", help="the stage's settings as JSON (the workflow does this)")
    p.add_argument("--threads", type=int, default=2, help="number of CPU threads")
    p.add_argument("--log", type=Path, help="also write all messages to this file")
    return p


def settings_of(args: argparse.Namespace, kind: type[S]) -> S:
    """The stage's settings, from the JSON in ``--settings`` or from the config file.

    Raises:
        UserError: the JSON or the config file is not valid, or has no such dataset or model.
    """
    if args.settings is not None:
        try:
            value = json.loads(args.settings)
        except json.JSONDecodeError as error:
            raise UserError(f"--settings: not valid JSON ({error})") from None
        if not isinstance(value, dict):
            raise UserError("--settings: must be a JSON object")
        return kind.from_json(value)
    from unet.config.load import load_file

    config = load_file(args.config)
    names = {key: getattr(args, key, None) for key in ("dataset", "model")}
    for key, name in names.items():
        if name is None:  # a stage for the whole run has neither
            continue
        known = list(getattr(config, key + "s"))
        if key == "model" and config.origins_for(args.dataset):
            known = list(config.models_for(args.dataset))
        if name not in known:
            listed = f"{', '.join(sorted(known))}{did_you_mean(name, known)}"
            raise UserError(f"--{key}: no {key} {name!r}; there are: {listed}")
    return kind.of(config, **{key: name for key, name in names.items() if name is not None})


def _output_of(args: argparse.Namespace) -> Path:
    """The output folder of a stage that is given none."""
    from unet.config.load import load_file

    return Path("results" if args.config is None else load_file(args.config).output)


def escape_unprintable() -> None:
    """Makes printing never fail: characters that the terminal's encoding lacks are escaped."""
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):  # not under pytest
            reconfigure(errors="backslashreplace")


@contextmanager
def closed_pipe() -> Iterator[None]:
    """Ends quietly if the reader of a pipe has gone (``| head``). Around all that a command
    prints: not around its work, where a broken pipe is an error."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except SystemExit as error:
        # Tables: rich has done the same, and ends the program.
        if not isinstance(error.__context__, BrokenPipeError):
            raise


@contextmanager
def stoppable() -> Iterator[None]:
    """Makes SIGTERM (time limits, ``kill``) end a stage in the same way as Ctrl-C, so that no
    half-written files remain and the log says why it ended. A second SIGTERM ends the process
    immediately."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        # Not Interrupted: what catches any Exception must not catch this.
        raise KeyboardInterrupt("by SIGTERM")

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def setup_logging(path: Path | None, *, shown: bool = False) -> None:
    """Sends messages to the console (stderr) and, with more detail, to the job's log file.

    If several processes work together, only the first logs everything; the others log warnings.

    Args:
        shown: the workflow shows the error that ends the job, so this process does not print it,
            unless the log file is incomplete.
    """
    if os.environ.get("RANK", "0") != "0":
        plain = "%(message)s"
        logging.basicConfig(level=logging.WARNING, format=plain, stream=sys.stderr, force=True)
        return
    console = logging.StreamHandler(sys.stderr)
    console.setFormatter(logging.Formatter("%(message)s"))
    handlers: list[logging.Handler] = [console]
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = LogFile(path, mode="w", encoding="utf-8", errors="backslashreplace")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        # The file comes first: the console then knows whether the file has the line.
        handlers.insert(0, file)
        if shown:
            console.addFilter(lambda record: file.incomplete or not hasattr(record, "ends_job"))
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)
    logging.captureWarnings(True)


def run(
    args: argparse.Namespace,
    stage: Callable[[argparse.Namespace, Paths], None],
    after_stop: str = "run the same command to continue",
) -> int:
    """Runs a stage and turns errors into a one-line message and an exit code.

    Args:
        args: with ``output`` and ``log``, if the command has these options.
        after_stop: what to do if it was stopped.

    Returns:
        0, or 2 for a user's mistake, 143 for an interruption, 1 for an internal error (its stack
        trace goes to the log file, or to the console if there is none).
    """
    escape_unprintable()
    try:
        by_workflow = getattr(args, "settings", None) is not None and CAUSE_SHOWN in os.environ
        setup_logging(getattr(args, "log", None), shown=by_workflow)
    except OSError as error:
        logging.basicConfig(format="%(message)s", stream=sys.stderr, force=True)
        log.error("error: %s: %s", args.log, error.strerror or error)
        return EXIT_USER_ERROR
    try:
        with stoppable():
            if hasattr(args, "settings") and getattr(args, "output", Path()) is None:
                args.output = _output_of(args)
            stage(args, Paths(getattr(args, "output", Path())))
    except UserError as error:
        for line in str(error).splitlines():
            _end("%s", line)
        return EXIT_USER_ERROR
    except (Interrupted, KeyboardInterrupt) as error:
        # A workflow that is stopped, by whatever, sends its stages what Ctrl-C sends.
        how = str(error) or ("with the run" if by_workflow else "by Ctrl-C")
        log.warning("stopped %s; %s", how, after_stop)
        return EXIT_INTERRUPTED
    except OSError as error:
        # Full disk, missing permissions: the user must fix these, a stack trace does not help.
        where = error.filename or getattr(args, "output", "")
        _end("%s: %s", where, error.strerror or error)
        log.debug("", exc_info=True)
        return EXIT_USER_ERROR
    except UnicodeEncodeError as error:
        name = str(error.object)[error.start : error.end + 20]
        _end("%a: the current locale cannot write this name; set LC_ALL=C.UTF-8", name)
        log.debug("", exc_info=True)
        return EXIT_USER_ERROR
    except Exception as error:
        if is_out_of_memory(error):
            said = one_line(error, 160)
            _end("out of memory (%s); docs/reliability.md lists what to lower", said)
            log.debug("", exc_info=True)
            return EXIT_USER_ERROR
        said = one_line(str(error), 300)
        _end("%s: %s (internal error)", type(error).__name__, said)
        _trace(getattr(args, "log", None))
        return 1
    return 0


def _end(text: str, *values: object) -> None:
    """Logs the error that ends the job."""
    log.error(f"error: {text}", *values, extra={"ends_job": True})


def _trace(path: Path | None) -> None:
    import traceback

    if path is None:
        traceback.print_exc()
        return
    with suppress(OSError), path.open("a", encoding="utf-8") as handle:
        traceback.print_exc(file=handle)
