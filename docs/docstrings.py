"""The package's docstrings, which are plain text, as reStructuredText: for autodoc, which takes nothing else.

They are written to be read in a terminal: `code` in single quotes, `name: what it is` with continuation lines set in,
bars and stars that mean what they say. Three kinds of lines stay as they are: doctests, lists, and blocks set in.
"""

import re
from itertools import groupby

CODE = re.compile(r"(``.+?``|`[^`\n]+`)", re.DOTALL)
EMPHASIS = re.compile(r"(\*\*[^*\s][^*]*\*\*|(?<![\w*])\*[A-Za-z][^*]*\*(?![\w*]))")
ITEM = re.compile(r"(?P<mark>[-*] |\d+\. )?(?P<term>[`\w*][\w`, .*\"()/|-]{0,60}?: )?(?P<text>.*)", re.DOTALL)
NAME = re.compile(r"`\w+`(?:, `\w+`)*: ")
NAMED = re.compile(r"(?<=[.;)]) (?=`\w+`(?:, `\w+`)*: |Raises )")
"""Where the next name is explained, or the errors, in lines that run on."""
TITLES = {"Args:": "Arguments", "Returns:": "Returns", "Raises:": "Raises"}


def converted(lines: list[str]) -> list[str]:
    """A docstring's lines as reStructuredText.

    >>> converted(["Sum of |f| and 2*g.", "", "sdf: (X, Y), mm,", "    negative inside."])
    ['Sum of \\\\|f\\\\| and 2\\\\*g.', '', '* ``sdf``: (X, Y), mm, negative inside.', '']
    """
    result: list[str] = []
    margin = 0
    for blank, block in groupby(lines, key=lambda line: not line.strip()):
        if blank:
            continue
        part = list(block)
        title = TITLES.get(part[0].strip())
        if title:
            result += [f"**{title}**", ""]
            part = part[1:]
            margin = indent(part[0]) if part else 0
        elif indent(part[0]) == 0:
            margin = 0
        if part:
            result += rendered(part, margin)
    return result


def rendered(part: list[str], margin: int) -> list[str]:
    """One block between empty lines; `margin` is how far its section is set in."""
    if part[0].lstrip().startswith(">>>"):
        return [*(line[indent(part[0]) :] for line in part), ""]
    if indent(part[0]) > margin and not marked(part[0]):
        return ["::", "", *("    " + line for line in part), ""]
    for number, line in enumerate(part):
        if line.lstrip().startswith(">>>"):
            return rendered(part[:number], margin) + rendered(part[number:], margin)
    names = NAMED.split(" ".join(line.strip() for line in part))
    if len(names) > 1 and NAME.match(names[0]) and not any(marked(line) for line in part):
        return [*("* " + escaped(text) for text in names if text), ""]
    base = indent(part[0])
    groups: list[list[str]] = []
    for number, line in enumerate(part):
        hangs = number + 1 < len(part) and indent(part[number + 1]) > base and term_of(line)
        item_like = marked(line) or hangs or (term_of(line) and starts_item(part, base))
        # A line within code that goes over two lines may look like anything.
        inside = bool(groups) and " ".join(groups[-1]).count("``") % 2
        if not groups or (indent(line) == base and item_like and not inside):
            groups.append([])
        groups[-1].append(line.strip())
    listed = len(groups) > 1 or marked(part[0]) or any(indent(line) > base for line in part)
    texts = [" ".join(group) for group in groups]
    return [*("* " + item(text) if listed else escaped(text) for text in texts), ""]


def starts_item(part: list[str], base: int) -> bool:
    """Whether a block is a list of names: its first line is one, and another is, or some line is set in."""
    names = [line for line in part if indent(line) == base and term_of(line)]
    return bool(term_of(part[0])) and (len(names) > 1 or any(indent(line) > base for line in part))


def item(text: str) -> str:
    """An item of a list; the name that it begins with, if it does, as code."""
    found = ITEM.fullmatch(text)
    assert found is not None
    term = found["term"]
    if not term:
        return escaped(found["text"])
    name = term.rstrip(": ")
    return (escaped(name) if "`" in name or " " in name else f"``{name}``") + ": " + escaped(found["text"])


def term_of(line: str) -> str | None:
    """The name that a line explains: one word, or several with commas, before a colon."""
    found = re.match(r"\s*(`?[\w.*]+`?(, `?[\w.*]+`?)*): ", line)
    return found[1] if found else None


def marked(line: str) -> bool:
    """Whether a line begins an item of a list."""
    return bool(re.match(r"\s*([-*]|\d+\.) ", line))


def indent(line: str) -> int:
    """Spaces that a line begins with."""
    return len(line) - len(line.lstrip())


def escaped(text: str) -> str:
    """Text whose code is code, whose emphasis is emphasis, and in which nothing else means anything."""
    pieces = []
    for number, piece in enumerate(CODE.split(text)):
        if number % 2:
            # A letter right behind would not end the code.
            pieces.append(f"``{piece.strip('`')}``\\ ")
            continue
        for other, plain in enumerate(EMPHASIS.split(piece)):
            pieces.append(plain if other % 2 else re.sub(r"([\\*|_`])", r"\\\1", plain))
    return "".join(pieces).replace("``\\  ", "`` ").rstrip("\\ ")
