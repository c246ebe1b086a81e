"""`vesselsdf data`: the data set cards, and whether a copy of a data set is whole."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from vesselsdf.errors import InputError
from vesselsdf.options import parse

HELP = """Data sets that load by name: each has a card, in datasets/ or a .toml file of your own.

  vesselsdf data list                                  the cards that come with the package
  vesselsdf data show minivess                         licence, source, layout, label ids, what others stumbled over
  vesselsdf data check minivess --root DIR             what is missing or odd in your copy
  vesselsdf data prepare minivess --root DIR -o cases  the same in nnU-Net's layout, vessel 1, NIfTI in mm
  vesselsdf train --data.root cases                    or at once: --data.root DIR --data.card minivess
"""


def data(arguments: list[str]) -> int:
    """One of the four; prints the help without any."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0
    if arguments[0] not in ACTIONS:
        raise InputError(f"there is no `data {arguments[0]}`: use one of {', '.join(ACTIONS)}")
    return ACTIONS[arguments[0]](arguments[1:])


def _list(arguments: list[str]) -> int:
    def command() -> int:
        """The cards that come with the package."""
        from vesselsdf.data import cards_folder, load_card

        cards = [load_card(path) for path in sorted(cards_folder().glob("*.toml"))]
        rows = [(card.name, str(card.cases or ""), "+".join(card.modality), card.title) for card in cards]
        widths = [max(len(row[k]) for row in rows) for k in range(3)]
        for row in rows:
            print("  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[3]]))
        return 0

    return parse(command, "data list", "  vesselsdf data list", arguments)


def _show(arguments: list[str]) -> int:
    import tyro

    def command(card: Annotated[str, tyro.conf.Positional]) -> int:
        """What is known about a data set.

        Args:
            card: name of a card, or a .toml file.
        """
        from vesselsdf.data import load_card, text_of

        print(text_of(load_card(card)))
        return 0

    return parse(command, "data show", "  vesselsdf data show minivess", arguments)


def _check(arguments: list[str]) -> int:
    import tyro

    def command(card: Annotated[str, tyro.conf.Positional], root: Path) -> int:
        """Say what is missing or odd in a copy of a data set: cases, grids, spacing, ids, labels, intensities.

        Args:
            card: name of a card, or a .toml file.
            root: folder of the data set. The exit code is 2 if anything is missing or odd.
        """
        from vesselsdf.data import load_card
        from vesselsdf.data_check import check, summary

        facts, findings = check(root, load_card(card))
        print(summary(facts, findings))
        return 2 if findings else 0

    return parse(command, "data check", "  vesselsdf data check minivess --root downloads/minivess", arguments)


def _prepare(arguments: list[str]) -> int:
    import tyro

    def command(
        card: Annotated[str, tyro.conf.Positional],
        root: Path,
        output: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    ) -> int:
        """Write the labelled cases of a data set in nnU-Net's layout: NIfTI in mm, vessel 1, to ignore 2.

        Args:
            card: name of a card, or a .toml file.
            root: folder of the data set.
            output: new folder.
        """
        from vesselsdf.data import load_card
        from vesselsdf.data_check import prepare

        count = prepare(root, load_card(card), output)
        print(f"Wrote {count} cases to {output}.\nNext: vesselsdf train --data.root {output}")
        return 0

    return parse(
        command, "data prepare", "  vesselsdf data prepare minivess --root downloads/minivess -o cases", arguments
    )


ACTIONS: dict[str, Callable[[list[str]], int]] = {
    "list": _list, "show": _show, "check": _check, "prepare": _prepare,
}  # fmt: skip
