"""What a comparison of segments found, one plain sentence each, with the names that the user gave to the ids."""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vesselsdf.data import load_card
from vesselsdf.errors import InputError

SIDES = ("prediction", "reference")
OUTSIDE = 0.005  # share inside a box that is shown as none
FORMS = "1=BA,2=R-PCA, the name of a dataset card, or a .toml or .json file of names and ids"


def read_names(text: str) -> dict[int, str]:
    """Names of label ids from `1=BA,2=R-PCA`, the name of a dataset card, or a .toml or .json file.

    A file is a card (`label_ids`), nnU-Net's or the Decathlon's dataset.json (`labels`), or a plain table; names to ids
    or ids to names. The background (0) is left out. Raises InputError for what is neither, and for an id named twice.

    >>> read_names("1=BA, 2=R-PCA")
    {1: 'BA', 2: 'R-PCA'}
    >>> read_names("topcow")[8]
    'right posterior communicating artery'
    """
    path = Path(text)
    if path.suffix in (".toml", ".json"):
        pairs = _from_file(path)
    elif "=" in text:
        pairs = [part.partition("=")[::2] for part in text.split(",") if part.strip()]
    else:
        pairs = list(load_card(text).label_ids.items())
    names: dict[int, str] = {}
    for first, second in pairs:
        number, name = (first, second) if _is_id(first) else (second, first)
        if not _is_id(number) or not str(name).strip():
            raise InputError(f"the names {text} hold {first}={second}, which is no id and name: give {FORMS}.")
        if int(number) in names:
            raise InputError(f"the names {text} name the id {number} twice: name it once.")
        names[int(number)] = str(name).strip().replace("_", " ")
    names.pop(0, None)
    if not names:
        raise InputError(f"the names {text} name no id above 0: give {FORMS}.")
    return names


def _is_id(value: Any) -> bool:
    return not isinstance(value, bool) and re.fullmatch(r"\s*\d+\s*", str(value)) is not None


def _from_file(path: Path) -> list[tuple[Any, Any]]:
    try:
        content = path.read_text(encoding="utf-8")
        table = tomllib.loads(content) if path.suffix == ".toml" else json.loads(content)
    except OSError as error:
        raise InputError(f"the names {path} cannot be read ({error.strerror}): check the path.") from error
    except ValueError as error:
        raise InputError(f"the names {path} are no valid {path.suffix[1:].upper()} ({error}): correct it.") from error
    for key in ("label_ids", "labels"):
        if isinstance(table, dict) and isinstance(table.get(key), dict):
            table = table[key]
    if not isinstance(table, dict):
        raise InputError(f"the names {path} are no table: give {FORMS}.")
    return list(table.items())


def findings(report: Mapping[str, Any], names: Mapping[int, str] | None = None) -> list[dict[str, Any]]:
    """The differences in a report of `segment_comparison.compare_segments`, each with `kind`, `ids` and `text`.

    In this order: frames that do not fit ("frames", "mirrored"); segments that one lacks ("segment"); parts that one
    lacks ("part"); segments in more pieces ("pieces") or with more loops ("loop"); contacts that one lacks ("contact");
    segments under another name ("name"); parts that are beyond the other's box and change no Betti number ("outside");
    what all this explains ("topology").
    """
    call = _Names(names or {})
    found = _frames(report)
    found += [_segment(row, side, call, report) for row in report["segments"] for side in SIDES if row[side] is None]
    absent = {side: {row["id"] for row in report["segments"] if row[side] is None} for side in SIDES}
    parts = [part for part in report["parts"] if part["ids"][0] not in absent[part["missing_in"]]]
    parts.sort(key=lambda part: -part["inside"] * part["volume"])
    found += [_part(part, call, report) for part in parts if not _beyond(part, report)]
    for row in report["segments"]:
        if row["prediction"] and row["reference"]:
            found += _inside(row, call)
    found += [found for row in report["contacts"] for found in _contact(row, call)]
    found += _renamed(report, call, absent)
    for side in SIDES:
        found += _outside([part for part in parts if part["missing_in"] == side and _beyond(part, report)], side, call)
    return [*found, _topology(report)]


class _Names:
    """How segments are called in sentences."""

    def __init__(self, names: Mapping[int, str]):
        self.names = names

    def __call__(self, number: int) -> str:
        return f"{self.names[number]} ({number})" if number in self.names else f"segment {number}"

    def all(self, numbers: Sequence[int]) -> str:
        names = [self.names.get(number, str(number)) for number in numbers]
        return " and ".join([", ".join(names[:-1])] * (len(names) > 1) + names[-1:])


def _finding(kind: str, ids: Sequence[int], text: str) -> dict[str, Any]:
    return {"kind": kind, "ids": list(ids), "text": text[0].upper() + text[1:]}


def _frames(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    fit = report["alignment"]
    if fit["kind"] == "none":
        kind = "mirrored" if fit["mirrored"] else "frames"
        text = f"the two are not brought together, so places are given in one only: {fit['why']}."
        return [_finding(kind, (), text)]
    if not {row["id"] for row in report["segments"] if row["prediction"] and row["reference"]}:
        return [_finding("frames", (), "the two have no id in common: check that both use the same label ids.")]
    return []


def _segment(row: Mapping[str, Any], lacking: str, call: _Names, report: Mapping[str, Any]) -> dict[str, Any]:
    owner = _other(lacking)
    facts = row[owner]
    text = f"{call(row['id'])} is missing in the {lacking}; in the {owner} it lies at {_at(facts['places'][owner])}"
    text += f" ({facts['volume']:.3g} mm3), touches {call.all(facts['touches']) or 'nothing'}"
    text += f", and {_role(report, owner, facts['betti_without'], [*facts['ring']], call)}"
    if facts["places"][lacking] is not None:
        text += _expected(report, lacking, facts["places"], facts["inside"])
    # The ends of a segment always lie within the tolerance of those that it touched.
    renamed = {number: share for number, share in facts.get("named_otherwise", {}).items() if share >= 0.5}
    text += f"; {_shares(renamed, call)} there" if renamed else ""
    return _finding("segment", [row["id"]], text + ".")


def _part(part: Mapping[str, Any], call: _Names, report: Mapping[str, Any]) -> dict[str, Any]:
    lacking = part["missing_in"]
    owner = _other(lacking)
    ids = [number for number, share in zip(part["ids"], part["shares"], strict=True) if share >= 0.1]
    text = f"{' and '.join(call(number) for number in ids)}: a part of {part['volume']:.3g} mm3 is missing in the "
    text += f"{lacking}; in the {owner} it lies at {_at(part['places'][owner])}"
    if part["betti_without"] is not None:
        text += f" and {_role(report, owner, part['betti_without'], [], call)}"
    text += _expected(report, lacking, part["places"], part["inside"])
    return _finding("part", ids, text + ".")


def _beyond(part: Mapping[str, Any], report: Mapping[str, Any]) -> bool:
    """Whether a part says more about the box of the other label than about its vessels."""
    without, betti = part["betti_without"], report["topology"][_other(part["missing_in"])]["betti"]
    return part["inside"] <= OUTSIDE and (without is None or tuple(without) == tuple(betti))


def _outside(parts: Sequence[Mapping[str, Any]], lacking: str, call: _Names) -> list[dict[str, Any]]:
    if not parts:
        return []
    owner = _other(lacking)
    which = [f"{call(p['ids'][0])} {p['volume']:.3g} mm3 at {_at(p['places'][owner])}" for p in parts]
    text = f"outside the box of the {lacking}, so not to be found there (places in the {owner}): {'; '.join(which)}."
    return [_finding("outside", [part["ids"][0] for part in parts], text)]


def _inside(row: Mapping[str, Any], call: _Names) -> list[dict[str, Any]]:
    """What a segment that both have is in one of them only: broken, or looped."""
    found = []
    for side in SIDES:
        facts, others, other = row[side], row[_other(side)], _other(side)
        if facts.get("gap"):
            gap = facts["gap"]
            text = f"{call(row['id'])} is in {len(facts['pieces'])} pieces in the {side} and in {len(others['pieces'])}"
            text += f" in the {other}; the gap of {gap['distance']:.2g} mm lies at {_at(gap['place'])}"
            text += ", beside the border of the box: they may be joined outside" if gap["at_border"] else ""
            found.append(_finding("pieces", [row["id"]], text + "."))
        if facts.get("loops"):
            loop = facts["loops"][0]
            text = f"{call(row['id'])} alone has {_count(facts['betti'][1], 'loop')} in the {side} and "
            text += f"{others['betti'][1] or 'none'} in the {other}; the widest is thinnest at "
            text += f"{_at(loop['places'][side])}, where its margin is {loop['margin']:.2g} mm."
            found.append(_finding("loop", [row["id"]], text))
    return found


def _contact(row: Mapping[str, Any], call: _Names) -> list[dict[str, Any]]:
    found = []
    for side in SIDES:
        facts, others = row[side], row[_other(side)]
        if facts and others and facts["places"] and not others["places"]:
            first, second = row["ids"]
            apart = others["apart"]
            text = f"{call(first)} and {call(second)} touch in the {side} at {_at(facts['places'][0])}, where "
            text += f"they close a ring of {call.all(facts['ring'])}" if facts["ring"] else "nothing else joins them"
            text += f"; in the {_other(side)} they are {apart['distance']:.2g} mm apart at {_at(apart['place'])}"
            found.append(_finding("contact", row["ids"], text + "."))
    return found


def _renamed(report: Mapping[str, Any], call: _Names, absent: Mapping[str, set[int]]) -> list[dict[str, Any]]:
    """Segments of the reference that the prediction has under another name."""
    found = []
    for row in report["segments"]:
        facts = row["reference"]
        if facts and facts.get("named_otherwise") and row["id"] not in absent["prediction"]:
            text = f"{call(row['id'])} of the reference: {_shares(facts['named_otherwise'], call)} in the prediction."
            found.append(_finding("name", [row["id"]], text))
    return found


def _topology(report: Mapping[str, Any]) -> dict[str, Any]:
    p, r = (report["topology"][side] for side in SIDES)
    both = tuple(p["betti_of_what_both_have"] or ()), tuple(r["betti_of_what_both_have"] or ())
    text = f"beta0, 1, 2 are {tuple(p['betti'])} in the prediction and {tuple(r['betti'])} in the reference"
    if p["rings"] != r["rings"]:
        text += f", rings of touching segments {p['rings']} and {r['rings']}"
    if tuple(p["betti"]) != tuple(r["betti"]) and both[0]:
        if both[0] == both[1]:
            text += f"; without what the other one lacks, both are {both[0]}: that explains the difference"
        else:
            text += f"; without what the other one lacks, they are {both[0]} and {both[1]}: there is more to it"
    return _finding("topology", (), text + ".")


def _role(report: Mapping[str, Any], owner: str, without: Sequence[int], ring: list[int], call: _Names) -> str:
    """What a segment or part does to the topology of the label it is in."""
    before, after = tuple(report["topology"][owner]["betti"]), tuple(without)
    if before == after:
        return "changes no Betti number"
    does = []
    if after[1] < before[1]:
        does.append(f"closes a ring of {call.all(ring)}" if ring else f"carries {_count(before[1] - after[1], 'loop')}")
    if after[0] > before[0]:
        does.append(f"joins what would be {after[0] - before[0] + 1} components")
    if after[0] < before[0]:
        does.append(f"is {_count(before[0] - after[0], 'component')} of its own")
    if after[2] < before[2]:
        does.append(f"closes {_count(before[2] - after[2], 'cavity')}")
    return f"{' and '.join(does) or 'fills a loop or cavity'} (beta0, 1, 2 {before} with it, {after} without)"


def _count(number: int, what: str) -> str:
    return f"a {what}" if number == 1 else f"{number} {what.removesuffix('y')}{'ies' if what.endswith('y') else 's'}"


def _shares(shares: Mapping[int, float], call: _Names) -> str:
    return " and ".join(f"{100 * share:.0f}% of it are labelled {call(int(name))}" for name, share in shares.items())


def _expected(report: Mapping[str, Any], lacking: str, places: Mapping[str, Any], inside: float) -> str:
    """Where something should be in the label that lacks it, how sure that is, and whether its box reaches there."""
    text = ""
    if report["alignment"]["kind"] == "grid":
        return text
    if report["alignment"]["kind"] == "rigid":
        text = f"; expected in the {lacking} at {_at(places[lacking])}, give or take {places['error']:.2g} mm"
    if inside >= 0.995:
        return f"{text}, inside its box"
    return f"{text}, {100 * inside:.0f}% of it inside its box" if inside > OUTSIDE else f"{text}, outside its box"


def _at(point: Sequence[float]) -> str:
    return f"({', '.join(f'{value:.1f}' for value in point)}) mm"


def _other(side: str) -> str:
    return SIDES[1 - SIDES.index(side)]
