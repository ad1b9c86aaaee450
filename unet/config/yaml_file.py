"""Reads a config file; an error is one line: file, line, column and the likely cause."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unet.errors import UserError, did_you_mean, one_line
from unet.files import read_regular

# A key without a space after its colon, but not a Windows path or a URL.
_NO_SPACE = re.compile(r"^\s*(?:- +)?([A-Za-z_][A-Za-z0-9_.-]*):(?=[^\s:/\\])(?!.*: )")
# Most bytes of a config file, and most keys of one mapping.
LARGEST_FILE, MOST_KEYS = 1_000_000, 10_000


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys of a YAML (or JSON) file.

    Raises:
        UserError: it is not a file, cannot be read, is not YAML, or has a key twice or no keys.
    """
    import yaml

    try:
        text = read_regular(path, LARGEST_FILE)
    except FileNotFoundError:
        beside = path.parent.iterdir() if path.parent.is_dir() else ()
        near = did_you_mean(path.name, (p.name for p in beside if p.is_file()))
        raise UserError(f"{path}: cannot be read: no such file{near}") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: cannot be read: byte {error.start} is not UTF-8; save the file as UTF-8"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a YAML file") from None
    raw = None
    try:
        if text.lstrip().startswith("{"):
            raw = json.loads(text, object_pairs_hook=_once)
    except _Twice:
        # Parse it as YAML, which gives line and column. Tabs in JSON can only be indentation.
        text = text.replace("\t", " ")
    except (ValueError, RecursionError):
        pass  # YAML may start with a brace too
    try:
        if raw is None:
            _refuse_doubles(yaml.compose(text, yaml.SafeLoader))
            raw = safe_yaml(text)
    except yaml.MarkedYAMLError as error:
        raise UserError(f"{path}: {_said(error, text)}") from None
    except Exception as error:
        # The parser also raises Python's own errors: for invalid dates and numbers, and for deeply
        # nested lists.
        raise UserError(f"{path}: not valid YAML: {one_line(error, 300)}") from None
    if not isinstance(raw, dict):
        space = _without_space(text.splitlines()[:1], 1)
        raise UserError(f"{path}: contains no keys{space}; see config/config.yaml for an example")
    return raw


def safe_yaml(text: str) -> Any:
    """Plain values of a YAML text, in bounded time and memory.

    Raises:
        Exception: any error of the parser; RecursionError for deeply nested lists; ValueError for
            merged keys (``<<``) that multiply. (Other aliases are shared and take no memory until
            they are copied: see :func:`unet.config.messages.too_large`.)
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def flatten_mapping(self, node: yaml.MappingNode) -> None:
            super().flatten_mapping(node)
            if len(node.value) > MOST_KEYS:
                raise ValueError(f"a mapping of more than {MOST_KEYS} keys (<< written out)")

    return yaml.load(text, Loader)


def check(paths: Iterable[Path], missing: str = "") -> None:
    """Ends the process with a line for each file that cannot be read.

    Call it before Snakemake reads the files: Snakemake's errors name neither file nor line.

    Args:
        missing: message for a missing file, instead of the usual one.
    """
    lines = []
    for path in paths:
        try:
            read_yaml(path)
        except UserError as error:
            line = f"{path}: {missing}" if missing and not path.exists() else str(error)
            if not path.exists() and path.suffix not in (".yaml", ".yml", ".json"):
                # The option takes all following words as files.
                line += "; write targets before --configfile"
            lines.append(f"error: {line}")
    if lines:
        sys.exit("\n".join(lines))


class _Twice(ValueError):
    """A mapping has a key twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON mapping; raises _Twice if a key occurs twice."""
    if len(value := dict(pairs)) < len(pairs):
        raise _Twice
    return value


def _refuse_doubles(node: Any) -> None:
    """Raises a YAML error for a key that a mapping has twice; otherwise the last would win."""
    import yaml

    waiting, seen = [node], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            first: dict[Any, int] = {}
            for key, value in node.value:
                waiting.append(value)
                name = key.value if isinstance(key, yaml.ScalarNode) else id(key)
                if name in first and name != "<<":
                    what = f"key {name!r} occurs a second time, first in line {first[name]}"
                    raise yaml.MarkedYAMLError(problem=what, problem_mark=key.start_mark)
                first[name] = key.start_mark.line + 1


def _said(error: Any, text: str) -> str:
    """The parser's message, with the likely cause."""
    mark = error.problem_mark or error.context_mark
    lines = text.splitlines()
    number = min(mark.line, max(len(lines) - 1, 0))
    where = f"line {mark.line + 1}, column {mark.column + 1}"
    if error.problem.startswith("key "):
        return f"{where}: {error.problem}"
    if found := re.search(r"constructor for the tag '(?:tag:yaml.org,2002:)?(.+)'", error.problem):
        tag = found[1] if found[1].startswith("!") else f"!!{found[1]}"
        return f"{where}: tag {tag} is not allowed; write plain values, or quote the text"
    return f"{where}: not valid YAML ({error.problem}){_cause(error, lines, number)}"


def _cause(error: Any, lines: list[str], number: int) -> str:
    near = lines[max(0, number - 2) : number + 1]
    opened = error.context_mark
    if any("\t" in line[: len(line) - len(line.lstrip())] for line in near):
        return "; found a tab, indent with spaces"
    if "flow" in (error.context or "") and opened is not None:
        line = lines[opened.line] if opened.line < len(lines) else ""
        bracket = line[opened.column : opened.column + 1]
        return f"; is the {bracket} in line {opened.line + 1} closed, and are there commas?"
    if "quoted" in (error.context or "") and "end" in error.problem and opened is not None:
        return f"; the quote in line {opened.line + 1} is not closed"
    if space := _without_space(near, number + 2 - len(near)):
        return space
    if "mapping values" in error.problem:
        return "; a value that contains ': ' needs quotes, and keys of one level the same indent"
    if found := re.search(r"found '([]}])'$", error.problem):
        return f"; there is one {found[1]} too many"
    if "block" in (error.context or ""):
        return "; keys of one level need the same indent"
    return ""


def _without_space(lines: list[str], first: int) -> str:
    for number, line in enumerate(lines, first):
        if match := _NO_SPACE.match(line):
            return f"; write a space after {match[1]}: (line {number})"
    return ""
