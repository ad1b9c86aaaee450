"""Renders a page from its template, and writes it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from unet.files import replacing
from unet.paths import fold_name
from unet.report import console
from unet.report.numbers import number
from unet.report.page_scripts import PageScripts

log = logging.getLogger(__name__)


def render(template: str, **values: Any) -> str:
    """The text of a page.

    Args:
        template: name of a file in ``templates/``.
        values: what it shows; a name that it uses and that is missing is an error.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        number=number,
        interval=console.interval,
        caution=console.caution,
        arrow=console.arrow,
        duration=console.duration,
        memory=console.memory,
        percent=console.percent,
        integer=console.integer,
        share=console.share,
        fold=fold_name,
        rgb=lambda colour: "rgb({}, {}, {})".format(*colour),
    )
    scripts = PageScripts()
    environment.globals.update(
        script=scripts.script, inline_script=scripts.inline, script_sources=scripts.sources
    )
    return str(environment.get_template(template).render(**values))


def write_page(path: Path, page: str) -> None:
    """Writes a page atomically."""
    with replacing(path) as temporary:
        # The hashes of the scripts hold for these line ends.
        temporary.write_text(page, encoding="utf-8", newline="\n")
    log.info("wrote %s (%.1f MB)", path, len(page) / 1e6)
