"""The table of the commands of ``unet``. Light: a command's module is imported when it is called.

To add a command, write a module with ``add_arguments(parser)`` and ``command(args) -> exit code``,
and add one line here.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import cast


@dataclass(frozen=True)
class Command:
    """A command of ``unet``.

    Attributes:
        name: the first word after ``unet``.
        module: it has ``add_arguments(parser)`` and ``command(args)``.
        text: what it does, in a few words, for the list of commands.
        computes: whether it restarts itself with an allocator for large arrays
            (:mod:`unet.allocator`).
    """

    name: str
    module: str
    text: str
    computes: bool = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds the description, the arguments and the examples of the command."""
        add = cast(
            Callable[[argparse.ArgumentParser], None],
            import_module(self.module).add_arguments,
        )
        add(parser)

    def __call__(self, args: argparse.Namespace) -> int:
        """Runs the command; returns the exit code."""
        call = cast(Callable[[argparse.Namespace], int], import_module(self.module).command)
        return call(args)


# In the order in which people use them.
COMMANDS = (
    Command("init", "unet.cli.init_command", "write a config for a folder of images and labels"),
    Command("download", "unet.cli.download_command", "fetch a public dataset, and write a config"),
    Command("check", "unet.cli.check_command", "look at images and labels before training"),
    Command("run", "unet.cli.run_command", "check, train, predict, evaluate and report"),
    Command("predict", "unet.cli.predict_command", "apply a trained model to images", True),
    Command("info", "unet.cli.info_command", "say what a model is, and how good"),
    Command("export", "unet.cli.export_command", "write a model for other programs", True),
    Command("report", "unet.cli.report_command", "find the pages of a report, or join them in one"),
    Command("view", "unet.cli.view_command", "look at results in napari"),
    Command("annotate", "unet.cli.annotate_command", "choose what to annotate next", True),
    Command(
        "evaluate",
        "unet.cli.evaluate_command",
        "score masks of any tool against true ones, without a training",
        True,
    ),
    Command(
        "models",
        "unet.cli.models_command",
        "list the presets: parameters, receptive field, halo, accepted sizes",
    ),
    Command("config", "unet.cli.config_command", "check a config and print all its keys"),
    Command(
        "completion", "unet.cli.completion_command", "print what makes the shell complete words"
    ),
)

# How the help groups the commands; a command that is in no group is listed last.
GROUPS = {
    "start with your images": ("init", "download", "check", "run"),
    "use a trained model": ("predict", "evaluate", "info", "export", "report", "view", "annotate"),
    "look things up": ("models", "config", "completion"),
}


def grouped() -> dict[str, list[Command]]:
    """Title -> the commands of that group, in the order of the table; empty groups are left out."""
    groups = {title: [c for c in COMMANDS if c.name in names] for title, names in GROUPS.items()}
    known = {name for names in GROUPS.values() for name in names}
    groups["more"] = [c for c in COMMANDS if c.name not in known]
    return {title: commands for title, commands in groups.items() if commands}
