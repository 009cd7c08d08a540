"""`pie complete`: one completion, after a patch or plain."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pie_cli.cli.documents import comparison_document, dump, prediction_document
from pie_cli.cli.models import open_model
from pie_cli.cli.render import Renderer
from pie_cli.config import Settings
from pie_cli.errors import InputError
from pie_cli.prompt.assembly import ContextFile
from pie_cli.results import Comparison, Prediction
from pie_cli.session import EditSession
from pie_cli.text.cursor import Cursor
from pie_cli.text.edit import Edit
from pie_cli.text.reading import Side
from pie_cli.watching.files import read_bytes, read_source, real_path, shown_path
from pie_cli.watching.patched import find_edit


@dataclass(frozen=True)
class Spent:
    """What a cold call spends before the edit comes, in milliseconds."""

    load_ms: float
    encode_before_ms: float


def run(
    file: Path | None,
    patch: Path | None,
    settings: Settings,
    *,
    context: Sequence[Path] = (),
    applied: bool,
    not_applied: bool,
    as_json: bool,
) -> None:
    """Complete FILE, or the file that the patch names, after the patch.

    Args:
        file: FILE.
        patch: a unified diff.
        settings: model, cursor, strategy, comparison, limits.
        context: files that stand before the prompt.
        applied: FILE already holds the patch, as the user knows.
        not_applied: FILE does not hold it yet, as the user knows.
        as_json: print JSON instead of text.

    Raises:
        PieError: whatever the user can mend.
    """
    renderer = Renderer()
    side = _side(applied=applied, not_applied=not_applied, has_patch=patch is not None)
    if patch is None:
        if file is None:
            raise InputError("nothing to complete", "name a FILE, or a patch with --edit")
        text = read_source(file)
        path, edit = file, Edit(text, text, ())
    else:
        found = find_edit(file, read_patch(patch), side)
        path, edit = found.path, found.edit
        for line in found.notes:
            renderer.note(line)
    # Refuse a cursor outside the file before loading a model.
    Cursor.parse(settings.at).offset(edit.after)
    others = [
        ContextFile(shown_path(other), read_source(other))
        for other in context
        if real_path(other) != real_path(path)
    ]
    opened = open_model(settings, renderer)
    session = EditSession(opened.model, shown_path(path), settings)
    encode_before_ms = 0.0
    with renderer.progress("encoding") as report:
        if patch is None:
            prediction = session.open(
                edit.after, lambda done, total: report("tokens", done, total), others
            )
        else:
            before, after = _cursors(session.cursor, edit)
            encode_before_ms = session.prime(
                edit.before, lambda done, total: report("tokens", done, total), others, before
            )
            prediction = session.update(edit, at=after)
    spent = Spent(opened.load_ms, encode_before_ms)
    if as_json:
        comparison = session.compare() if patch is not None else None
        print(document(session, prediction, comparison, spent))
        return
    renderer.prediction(session.path, edit.after, prediction)
    if patch is not None:
        comparison = session.compare()
        if comparison is not None:
            renderer.comparison(comparison)
    renderer.line(_spent_line(spent, with_edit=patch is not None))


def document(
    session: EditSession, prediction: Prediction, comparison: Comparison | None, spent: Spent
) -> str:
    """Return the one JSON document that `--json` prints."""
    return dump(
        {
            **prediction_document(session.path, session.model, prediction),
            "load_ms": round(spent.load_ms, 3),
            "encode_before_ms": round(spent.encode_before_ms, 3),
            "comparison": comparison_document(comparison) if comparison else None,
        },
        indent=2,
    )


def read_patch(patch: Path) -> bytes:
    """Read a patch from a file, or from stdin for `-`.

    Raises:
        InputError: it cannot be read.
    """
    if patch != Path("-"):
        return read_bytes(patch)
    if sys.stdin is None:
        raise InputError("there is no stdin to read a patch from", "name a file with --edit")
    try:
        return sys.stdin.buffer.read()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read stdin: {error}", "name a file with --edit") from None


def _side(*, applied: bool, not_applied: bool, has_patch: bool) -> Side | None:
    """Read what the user says of the file and the patch."""
    if not (applied or not_applied):
        return None
    if not has_patch:
        option = "--applied" if applied else "--not-applied"
        raise InputError(f"{option} is about a patch", "name the patch with --edit")
    if applied and not_applied:
        raise InputError("--applied and --not-applied exclude each other", "give one of them")
    return "applied" if applied else "not applied"


def _cursors(cursor: Cursor, edit: Edit) -> tuple[Cursor, Cursor]:
    """Return where the cursor was before the edit, and where it is after it."""
    if cursor.follows_edits and edit.lowest:
        return replace(cursor, line=edit.lowest.old_stop), replace(
            cursor, line=edit.lowest.new_stop
        )
    return cursor.moved(edit.reversed()).within(edit.before), cursor


def _spent_line(spent: Spent, *, with_edit: bool) -> str:
    before = (
        f", {spent.encode_before_ms:,.0f} ms on encoding the file before the edit"
        if with_edit
        else ""
    )
    advice = "; pie watch spends these once" if with_edit else ""
    return f"Spent before that: {spent.load_ms:,.0f} ms on loading{before}{advice}"
