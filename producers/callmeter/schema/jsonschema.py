"""JSON Schemas of what travels, generated from the record types and checked in beside them.

``python -m callmeter.schema.jsonschema`` writes ``generated/``; with ``--check`` it only compares.
A change that breaks what was written before is refused: within a format version fields are added,
and never removed, retyped, made required or narrowed (docs/reference/formats.md).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from callmeter.schema.alerts import Alert
from callmeter.schema.budgets import Budget
from callmeter.schema.events import KINDS
from callmeter.schema.header import EnvelopeHeader
from callmeter.schema.live import LiveProject
from callmeter.schema.metered import Delta, DeltasHeader, MeteredHeader, Refused
from callmeter.schema.spend import Live, OpeningHeader, Spend, SpendHeader
from callmeter.schema.status import BudgetStatus

GENERATED = Path(__file__).parent / "generated"

#: File name in ``generated/`` → record type.
SCHEMAS: Mapping[str, type[Struct]] = {
    "envelope_header": EnvelopeHeader,
    **KINDS,
    "metered_header": MeteredHeader,
    "refused": Refused,
    "deltas_header": DeltasHeader,
    "delta": Delta,
    "spend_header": SpendHeader,
    "opening_header": OpeningHeader,
    "spend": Spend,
    "live": Live,
    "budget": Budget,
    "budget_status": BudgetStatus,
    "alert": Alert,
    "live_project": LiveProject,
}

Schema = dict[str, Any]

#: Keywords that bound a value, and whether a larger bound is the wider one.
_BOUNDS = {
    "minimum": False,
    "exclusiveMinimum": False,
    "minLength": False,
    "minItems": False,
    "minProperties": False,
    "maximum": True,
    "exclusiveMaximum": True,
    "maxLength": True,
    "maxItems": True,
    "maxProperties": True,
}


def generate() -> dict[str, Schema]:
    """Every schema by name, as the record types say now (JSON Schema 2020-12)."""
    return {name: _schema(name, kind) for name, kind in SCHEMAS.items()}


def _schema(name: str, kind: type[Struct]) -> Schema:
    schema = msgspec.json.schema(kind)
    body = schema.pop("$defs")
    root: Schema = body.pop(kind.__name__)
    root["description"] = " ".join(str(root.get("description", "")).split())
    head: Schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    head["$id"] = f"callmeter:{name}:v1"
    if body:
        root["$defs"] = body
    return head | root


def read_checked_in() -> dict[str, Schema]:
    """The schemas in ``generated/``."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(GENERATED.glob("*.json"))}


def incompatibilities(old: Schema, new: Schema) -> list[str]:
    """What ``new`` breaks of what ``old`` promised to writers and readers, one line each.

    Removed fields, changed types, new required fields, and narrowed limits or patterns.
    """
    return list(_compare(old, new, "$", old, new))


def _compare(
    old: Schema, new: Schema, at: str, old_root: Schema, new_root: Schema
) -> Iterator[str]:
    old, new = _resolve(old, old_root), _resolve(new, new_root)
    if "anyOf" in old or "anyOf" in new:
        yield from _compare_unions(old, new, at, old_root, new_root)
        return
    if old.get("type") != new.get("type"):
        if "type" in new:
            yield f"{at}: type was {old.get('type')}, is {new['type']}"
        return
    yield from _compare_limits(old, new, at)
    old_fields, new_fields = old.get("properties", {}), new.get("properties", {})
    for name in old_fields.keys() - new_fields.keys():
        yield f"{at}.{name}: removed"
    for name in set(new.get("required", ())) - set(old.get("required", ())):
        yield f"{at}.{name}: newly required"
    for name in old_fields.keys() & new_fields.keys():
        yield from _compare(old_fields[name], new_fields[name], f"{at}.{name}", old_root, new_root)
    for part in ("items", "additionalProperties", "propertyNames"):
        was, now = old.get(part), new.get(part)
        if isinstance(now, dict):
            was = was if isinstance(was, dict) else {}
            yield from _compare(was, now, f"{at}.{part}", old_root, new_root)
        elif now is False and was is not False:
            yield f"{at}: further fields are refused"


def _compare_unions(
    old: Schema, new: Schema, at: str, old_root: Schema, new_root: Schema
) -> Iterator[str]:
    """Each old branch must be taken by some new one."""
    branches = new.get("anyOf", [new])
    for branch in old.get("anyOf", [old]):
        if all(any(_compare(branch, other, at, old_root, new_root)) for other in branches):
            yield f"{at}: no longer {branch.get('type', branch)}"


def _compare_limits(old: Schema, new: Schema, at: str) -> Iterator[str]:
    for keyword, larger_is_wider in _BOUNDS.items():
        was, now = old.get(keyword), new.get(keyword)
        if now is None:
            continue
        if was is None or (now < was if larger_is_wider else now > was):
            yield f"{at}: {keyword} was {was}, is {now}"
    if "pattern" in new and new["pattern"] != old.get("pattern"):
        yield f"{at}: pattern was {old.get('pattern')}, is {new['pattern']}"
    if "enum" in new and not set(old.get("enum", ["*"])) <= set(new["enum"]):
        yield f"{at}: enum was {old.get('enum')}, is {new['enum']}"
    if old.get("default") != new.get("default"):
        yield f"{at}: what absent means was {old.get('default')}, is {new.get('default')}"


def _resolve(schema: Schema, root: Schema) -> Schema:
    ref = schema.get("$ref")
    if ref is None:
        return schema
    found: Schema = root["$defs"][str(ref).rsplit("/", 1)[-1]]
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check ``generated/``. Exit 1 if something differs or would break."""
    parser = argparse.ArgumentParser(prog="python -m callmeter.schema.jsonschema")
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    parser.add_argument(
        "--break", dest="may_break", action="store_true", help="write incompatible changes too"
    )
    options = parser.parse_args(argv)
    old, new = read_checked_in(), generate()
    broken = [f"{name}: removed" for name in old.keys() - new.keys()]
    for name in old.keys() & new.keys():
        broken += [f"{name} {line}" for line in incompatibilities(old[name], new[name])]
    differing = sorted(name for name in new if new[name] != old.get(name))
    for line in sorted(broken):
        print(f"incompatible: {line}", file=sys.stderr)  # noqa: T201 (a program for developers)
    for name in differing:
        print(f"{'differs' if options.check else 'written'}: {name}.json")  # noqa: T201
    if options.check:
        return 1 if differing or broken else 0
    if broken and not options.may_break:
        return 1
    GENERATED.mkdir(exist_ok=True)
    for name in differing:
        text = json.dumps(new[name], indent=2, ensure_ascii=False) + "\n"
        (GENERATED / f"{name}.json").write_text(text)
    for name in old.keys() - new.keys():
        (GENERATED / f"{name}.json").unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
