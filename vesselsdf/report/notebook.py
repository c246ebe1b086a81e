"""A result in a notebook: a picture with the facts, and the page of the report within the notebook."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Frame:
    """A page that a notebook shows in a frame of its own, `height` pixels high."""

    page: str
    height: int

    def _repr_html_(self) -> str:
        style = f"width: 100%; height: {self.height}px; border: 0"
        return f'<iframe srcdoc="{html.escape(self.page)}" style="{style}" title="report"></iframe>'


def summary_html(title: str, sentence: str, facts: Sequence[str], picture: bytes) -> str:
    """What a notebook shows of a result: `picture` is a PNG."""
    listed = "".join(f"<li>{html.escape(fact)}</li>" for fact in facts)
    data = base64.b64encode(picture).decode()
    return (
        f"<div><b>{html.escape(title)}</b><p>{html.escape(sentence)}</p><ul>{listed}</ul>"
        f'<img alt="the vessels" style="max-width: 100%" src="data:image/png;base64,{data}"></div>'
    )
