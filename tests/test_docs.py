"""What the README and the documentation show is there: commands, options, Python names, files, pictures."""

import ast
import doctest
import importlib
import json
import re
import shlex
import sys
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path

import pytest

from vesselsdf import data_commands, export_commands
from vesselsdf.cli import main
from vesselsdf.commands import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "vesselsdf" / "weights" / "README.md",
    *(path for path in sorted(DOCS.rglob("*.md")) if "_build" not in path.parts),
    DOCS / "tutorial.ipynb",
]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
OPTION = re.compile(r"(?<![\w-])--?[a-z][\w.-]*")
ACTIONS = {"data": data_commands.ACTIONS, "export": export_commands.ACTIONS}
# Commands that are shown to say what they do before there is one: a placeholder, not a name.
PLACEHOLDER = "COMMAND"


def text_of(page: Path) -> str:
    """The Markdown of a page; of a notebook, of its cells of text."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        return "\n\n".join(
            "".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"
        )
    return text


def commands_of(page: Path) -> list[str]:
    """Every command line of the package that a page shows, in a block or within a sentence."""
    text = text_of(page)
    lines = [line.strip().removeprefix("$ ") for _, block in FENCE.findall(text) for line in block.splitlines()]
    lines += [head.partition("}")[2].strip() for head, _ in FENCE.findall(text) if head.startswith("{command}")]
    lines += INLINE.findall(FENCE.sub("", text))
    found = [re.sub(r"^torchrun .*?train\.py", "vesselsdf train", line) for line in lines]
    return [line for line in found if line.startswith("vesselsdf ")]


@cache
def help_of(*names: str) -> str:
    """What a command prints with --help."""
    text = StringIO()
    with redirect_stdout(text):
        try:
            code = main([*names, "--help"])
        except SystemExit as end:
            code = end.code or 0
    assert code == 0
    return text.getvalue()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_that_is_shown_exists_with_its_options(page, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for command in commands_of(page):
        words = shlex.split(command, comments=True)[1:]
        if words[0] == PLACEHOLDER:
            continue
        assert words[0] in COMMANDS or words[0].startswith("-"), f"{command!r}: there is no such command"
        names = [words[0]]
        if words[0] in ACTIONS and len(words) > 1 and not words[1].startswith("-"):
            assert words[1].rstrip(",") in ACTIONS[words[0]], f"{command!r}: there is no such action"
            names.append(words[1].rstrip(","))
        known = set(OPTION.findall(help_of(*names) if words[0] in COMMANDS else main_options()))
        for word in words[1:]:
            option = word.partition("=")[0]
            if OPTION.fullmatch(option):
                assert option in known or option == "--help", f"{command!r}: there is no option {option}"


def main_options() -> str:
    """Options of the program itself."""
    return "-h --help -V --version"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_option_that_is_named_alone_belongs_to_some_command(page, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    if page.name == "measured.md":
        pytest.skip("names options of the benchmarks, too")
    below = [help_of(name, action) for name, actions in ACTIONS.items() for action in actions]
    everything = " ".join([*(help_of(name) for name in COMMANDS), *below])
    known = set(OPTION.findall(everything)) | {"--group.name"}
    for code in INLINE.findall(FENCE.sub("", text_of(page))):
        if code.startswith("--"):
            assert OPTION.match(code)[0] in known, f"{page.name}: no command has {code}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_to_a_file(page):
    for link in LINK.findall(INLINE.sub("", FENCE.sub("", text_of(page)))):
        if not re.match(r"[a-z]+:|#", link):
            assert (page.parent / link.partition("#")[0]).exists(), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_name_that_python_examples_take_from_the_package_is_there(page):
    for language, block in FENCE.findall(text_of(page)):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("vesselsdf"):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "vesselsdf":
                assert hasattr(importlib.import_module("vesselsdf"), node.attr), node.attr


def test_the_card_that_is_shown_can_be_loaded(tmp_path):
    from vesselsdf.data import load_card

    (block,) = [
        block for language, block in FENCE.findall(text_of(DOCS / "howto" / "your-data.md")) if language == "toml"
    ]
    path = tmp_path / "ours.toml"
    path.write_text(block, encoding="utf-8")
    card = load_card(path)
    assert card.vessel_ids == (1, 2)
    assert card.ignore_ids == (3,)


def test_the_settings_that_are_shown_can_be_loaded(tmp_path):
    from vesselsdf.config import load_config

    (block,) = [
        block for language, block in FENCE.findall(text_of(DOCS / "howto" / "training.md")) if language == "yaml"
    ]
    path = tmp_path / "run.yaml"
    path.write_text(block, encoding="utf-8")
    assert load_config(path).training.start == "general"


def test_every_picture_is_shown_and_small():
    shown = "\n".join(text_of(page) for page in PAGES)
    pictures = sorted((DOCS / "pictures").glob("*"))
    assert pictures
    for picture in pictures:
        assert f"pictures/{picture.name})" in shown, f"no page shows {picture.name}"
        assert picture.stat().st_size <= 150_000, f"{picture.name} is too large for a page"
    assert sum(picture.stat().st_size for picture in pictures) <= 1_000_000


def test_the_demo_in_the_tutorial_is_that_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    tree = re.search(r"^TREE := (\S+)", makefile, re.MULTILINE)[1]
    recipe = re.findall(r"\$\(BIN\)/(vesselsdf [^;\n]+)", makefile)
    expected = [re.sub(r'"\$\(SCAN\)"', tree, command).strip() for command in recipe]
    shown = commands_of(DOCS / "first-steps.md")
    assert len(expected) == 5
    for command in expected:
        assert command in shown, f"`make demo` runs {command!r}, the tutorial does not show it"


def test_docstrings_are_turned_as_their_examples_say(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    monkeypatch.delitem(sys.modules, "docstrings", raising=False)
    outcome = doctest.testmod(importlib.import_module("docstrings"))
    assert outcome.attempted > 0
    assert outcome.failed == 0
