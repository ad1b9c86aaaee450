"""Printing and files under any locale: a character that the terminal lacks is no error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What reports print, what people call their files, and a name that is not UTF-8.
TEXT = "F1 \u2191 \u2192 \xb5m Zellen-\xfc \u0131 \udcff"
JOB = f"""
import argparse, logging, sys
from pathlib import Path
from unet.cli import stage

def work(args, paths):
    print({TEXT!a})
    logging.getLogger("unet").info({TEXT!a}[:-1])

args = argparse.Namespace(log=Path(sys.argv[1]), output=Path("."))
sys.exit(stage.run(args, work))
"""
SUMMARY = """
import argparse, sys
from pathlib import Path
from rich.console import Console
from unet.cli import stage

def work(args, paths):
    from unet.report.score_tables import ReportRow
    from unet.report.console import arrow
    Console().print("F1 " + arrow("ap_mean"), chr(0x2192))

sys.exit(stage.run(argparse.Namespace(log=None, output=Path(".")), work))
"""
LOCALES = {
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "strict ascii": {"PYTHONIOENCODING": "ascii:strict"},
    "de_DE": {"PYTHONIOENCODING": "iso-8859-1:strict"},
    "tr_TR": {"PYTHONIOENCODING": "iso-8859-9:strict"},
    "UTF-8": {"PYTHONIOENCODING": "utf-8:strict"},
}


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("program", [JOB, SUMMARY], ids=["job", "summary"])
def test_printing_fails_in_no_locale(tmp_path: Path, locale: str, program: str) -> None:
    log = tmp_path / "a.log"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LC_")}
    done = subprocess.run(
        [sys.executable, "-c", program, str(log)],
        cwd=ROOT, env=kept | LOCALES[locale], capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert done.stdout.startswith(b"F1 ")
    if program is JOB:
        # The file is UTF-8 whatever the terminal is.
        assert TEXT[:-1] in log.read_text(encoding="utf-8")


def test_the_command_prints_in_no_locale_but_ascii() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "unet", "models"],
        cwd=ROOT, env=os.environ | LOCALES["strict ascii"], capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"unet2015" in done.stdout
