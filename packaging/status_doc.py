"""Writes the table of groups in docs/STATUS.md from what a running API server advertises and does.

Called by: `make fix`. `--check` only compares (make check). An advertised verb that does not work is an error of both.
Never does: touch what stands outside of the markers.
"""

from __future__ import annotations

import asyncio
import sys
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "packaging"))

from status_probe import ELSEWHERE, Broken, Report, probe  # noqa: E402

TARGET = ROOT / "docs" / "STATUS.md"
BEGIN, END = "<!-- groups -->", "<!-- /groups -->"
ALL = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
HEAD = """
## Groups and kinds

Made by `make fix` from a running API server: every verb was tried that its discovery advertises (create, also dry and strictly
validated; get; list and watch by label and field; update; JSON, merge, strategic and apply patches; delete; deletecollection;
the Table form; GET, PUT and PATCH of subresources). "all": create, delete, deletecollection, get, list, patch, update, watch.
Columns with a star show with `-o wide`. Subresources with a cross lead to nodes or pods and are tried by other tests.

| group | kind | verbs | subresources | columns | notes |
| --- | --- | --- | --- | --- | --- |
"""


def line(report: Report, title: str) -> str:
    row = report.row
    verbs = "all" if sorted(report.works) == ALL else ", ".join(sorted(report.works))
    marked = ELSEWHERE.get(row["resource"], ())
    subs = ", ".join(f"{name}†" if name in marked else name for name in report.subresources)
    notes = list(report.notes)
    if row.get("shortNames"):
        notes.append(", ".join(f"`{name}`" for name in row["shortNames"]))
    if "all" in (row.get("categories") or ()):
        notes.append("in `all`")
    if row["scope"] != "Namespaced":
        notes.append("cluster-wide")
    cells = (title, row["responseKind"]["kind"], verbs, subs, ", ".join(report.columns), "; ".join(notes))
    return "| " + " | ".join(cells) + " |\n"


def text(reports: list[Report]) -> str:
    out = [HEAD]
    for (group, version), rows in groupby(reports, key=lambda r: (r.group, r.version)):
        title = f"{group or 'core'} {version}"
        for report in rows:
            out.append(line(report, title))
            title = ""
    return "".join(out)


def main() -> int:
    try:
        table = text(asyncio.run(probe()))
    except Broken as error:
        print(f"discovery advertises what does not work: {error}", file=sys.stderr)
        return 1
    before = TARGET.read_text()
    head, found, rest = before.partition(BEGIN)
    if not found:
        head, rest = before.rstrip() + "\n\n", END + "\n"
    _, _, tail = rest.partition(END)
    wanted = f"{head}{BEGIN}{table}{END}{tail}"
    if "--check" in sys.argv:
        if wanted != before:
            print("docs/STATUS.md is not what the server says: run 'make fix'", file=sys.stderr)
            return 1
        return 0
    TARGET.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
