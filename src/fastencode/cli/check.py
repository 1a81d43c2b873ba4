"""``fastencode-tune check``: what a data set holds, and everything that is wrong with it."""

from __future__ import annotations

import csv
import json

from fastencode.cli.settings import CheckConfig
from fastencode.files import make_folder, whole_file
from fastencode.progress import say
from fastencode.runs.checking import Checked, check_data, rows_as_text

__all__ = ["run"]


def run(config: CheckConfig) -> int:
    """Print a table of all runs and a line for each problem; return 1 if some run cannot be used."""
    found = check_data(config.data, config.layout, tr=config.tr, images=config.images, responses=not config.headers_only)
    people = len({row["participant"] for row in found.rows})
    counts = f"{people} participant{'s' * (people != 1)}, {len(found.rows)} run{'s' * (len(found.rows) != 1)}"
    say(f"{config.data}: layout {found.layout}, {counts}, TR {found.tr:g} s\n")
    if found.rows:
        say(rows_as_text(found.rows))
    for who, notes in found.notes.items():
        say(f"{who}: {'; '.join(notes)}")
    unusable = [one for one in found.findings if one.kind == "unusable"]
    others = [one for one in found.findings if one.kind != "unusable"]
    for heading, some in (("cannot be used", unusable), ("look at", others)):
        if some:
            say(f"\n{heading}:\n" + "\n".join(f"- {one}" for one in some))
    say("\nnothing is wrong" if not found.findings else f"\n{len(unusable)} cannot be used, {len(others)} to look at")
    if config.out is not None:
        _write(config, found)
    return 0 if found.is_usable else 1


def _write(config: CheckConfig, found: Checked) -> None:
    """check.csv, one row for each run, and check.json with everything."""
    assert config.out is not None
    folder = make_folder(config.out)
    with whole_file(folder / "check.csv") as partial, partial.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(found.rows[0]) if found.rows else ["participant", "run"])
        table.writeheader()
        table.writerows(found.rows)
    with whole_file(folder / "check.json") as partial:
        partial.write_text(json.dumps(found.as_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    say(f"check.csv and check.json are in {folder}")
