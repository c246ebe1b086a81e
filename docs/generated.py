"""Parts of the site that the package itself writes when the site is built, so that they cannot get stale.

`{command} vesselsdf ...`: what that command prints. `{metrics}`: the table of metrics with what each one means.
`{settings} DataSettings`: a group of settings with defaults and meaning.
"""

import io
import os
import shlex
from contextlib import redirect_stdout

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.pycode import ModuleAnalyzer

from vesselsdf import config
from vesselsdf.cli import main
from vesselsdf.config import RunConfig
from vesselsdf.metric_table import TABLE

WIDTH = 88
"""Columns of what commands print."""
BEST = {"higher": "high", "lower": "low", "zero": "0", "": ""}


class Command(Directive):
    """What a command prints, below it."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Called by docutils."""
        return [nodes.literal_block("", f"$ {self.arguments[0]}\n\n{printed(self.arguments[0])}", language="none")]


def printed(command: str) -> str:
    """What `vesselsdf ...` prints; ValueError if it fails."""
    program, *arguments = shlex.split(command)
    text, code = io.StringIO(), 0
    width = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(WIDTH)
    try:
        with redirect_stdout(text):
            code = main(arguments)
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        os.environ.pop("COLUMNS")
        if width is not None:
            os.environ["COLUMNS"] = width
    if program != "vesselsdf" or code:
        raise ValueError(f"{command} fails with exit code {code}")
    return text.getvalue().rstrip()


class Metrics(Directive):
    """The table of metrics."""

    def run(self) -> list[nodes.Node]:
        """Called by docutils."""
        rows = ["| metric | group | unit | good | meaning |", "| --- | --- | --- | --- | --- |"]
        seen = set()
        for row in TABLE:
            name = row.family or row.key
            if name not in seen:
                seen.add(name)
                rows.append(f"| `{name}` | {row.group} | {row.unit} | {BEST[row.better]} | {row.meaning} |")
        return parsed(self, rows)


class Settings(Directive):
    """A table of a group of settings."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Called by docutils."""
        group = next(
            name for name, field in RunConfig.model_fields.items() if field.annotation.__name__ == self.arguments[0]
        )
        meanings = ModuleAnalyzer.for_module(config.__name__).find_attr_docs()
        rows = ["| setting | default | meaning |", "| --- | --- | --- |"]
        for name, field in getattr(config, self.arguments[0]).model_fields.items():
            flag = f"--{group}.{name}".replace("_", "-")
            meaning = " ".join(meanings[self.arguments[0], name]).strip().replace("|", "\\|").replace("**", "\\*\\*")
            rows.append(f"| `{flag}` | `{field.default}` | {meaning} |")
        return parsed(self, rows)


def parsed(directive: Directive, rows: list[str]) -> list[nodes.Node]:
    """Lines of Markdown as nodes."""
    node = nodes.container()
    directive.state.nested_parse(StringList(rows, "generated.py"), directive.content_offset, node)
    return node.children


def setup(app) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("settings", Settings)
    app.add_directive("command", Command)
    app.add_directive("metrics", Metrics)
    return {"parallel_read_safe": True}
