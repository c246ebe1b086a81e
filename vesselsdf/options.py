"""Options of the command line, filled in from what was typed."""

import inspect
import sys
from collections.abc import Callable


def parse(function: Callable[..., int], command: str, examples: str, arguments: list[str]) -> int:
    """Call `function` with its parameters filled from `arguments`."""
    import tyro

    purpose = inspect.cleandoc(function.__doc__ or "").split("Args:")[0].strip()
    description = f"{purpose}\n\nexamples:\n{examples}"
    return tyro.cli(
        function,
        prog=f"vesselsdf {command}",
        description=description,
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes,),
    )


def take(arguments: list[str], *names: str) -> tuple[str | None, list[str]]:
    """The value of an option and the arguments without it."""
    rest, value = [], None
    items = iter(arguments)
    for item in items:
        name, _, joined = item.partition("=")
        if name in names:
            value = joined or next(items, None)
            if value is None:
                print(f"vesselsdf: {name} needs a value.", file=sys.stderr)
                raise SystemExit(2)
        else:
            rest.append(item)
    return value, rest
