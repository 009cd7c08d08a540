"""`pie complete`: one completion, behind a patch or plain."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pie_cli.cli.documents import comparison_document, dump, prediction_document
from pie_cli.cli.models import open_model
from pie_cli.cli.render import Renderer
from pie_cli.config import Settings
from pie_cli.errors import InputError, PatchError
from pie_cli.prompt.assembly import ContextFile
from pie_cli.results import Comparison, Prediction
from pie_cli.session import EditSession
from pie_cli.text.applying import FilePatch, fits
from pie_cli.text.applying import locate as place_hunks
from pie_cli.text.cursor import Spot
from pie_cli.text.edit import Edit as LineEdit
from pie_cli.text.edit import LineHunk
from pie_cli.text.patches import parse
from pie_cli.watching.files import read_source, shown_path


@dataclass(frozen=True)
class Edit:
    """A file before and after an edit.

    Attributes:
        path: of the file.
        before, after: its texts.
        lowest: its bottom-most hunk; None for a plain completion.
    """

    path: Path
    before: str
    after: str
    lowest: LineHunk | None = None


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
    as_json: bool,
) -> None:
    """Complete FILE, or the file that the patch names behind the patch.

    Args:
        file: FILE.
        patch: a unified diff.
        settings: model, spot, strategy, comparison, limits.
        context: files that stand before the prompt.
        applied: FILE already holds the patch.
        as_json: print JSON instead of text.

    Raises:
        PieError: whatever the user can mend.
    """
    renderer = Renderer()
    if patch is None:
        if file is None:
            raise InputError("nothing to complete", "name a FILE, or a patch with --edit")
        if applied:
            raise InputError("--applied is about a patch", "name the patch with --edit")
        text = read_source(file)
        edit = Edit(file, text, text)
    else:
        edit = find_edit(file, _read_patch(patch), applied=applied, warn=renderer.note)
    # Refuse a spot outside the file before loading a model.
    Spot.parse(settings.at).offset(edit.after)
    others = [
        ContextFile(shown_path(path), read_source(path))
        for path in context
        if path.resolve() != edit.path.resolve()
    ]
    opened = open_model(settings, renderer)
    session = EditSession(opened.model, shown_path(edit.path), settings)
    encode_before_ms = 0.0
    with renderer.progress("encoding") as report:
        if patch is None:
            prediction = session.open(
                edit.after, lambda done, total: report("tokens", done, total), others
            )
        else:
            before, after = _spots(session.spot, edit)
            encode_before_ms = session.prime(
                edit.before, lambda done, total: report("tokens", done, total), others, before
            )
            prediction = session.update(edit.after, at=after)
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


def find_edit(
    file: Path | None, patch_text: str, *, applied: bool, warn: Callable[[str], None]
) -> Edit:
    """Find the file that a patch is about, and its text before and behind the patch.

    A patch that the file on disk already holds is reversed for the state before it; one that fits
    both ways counts as not applied.

    Args:
        file: the file to complete; None for the one that the patch names last.
        patch_text: a unified diff.
        applied: the user says that the file already holds the patch.
        warn: told what of the patch is left aside.

    Raises:
        InputError: when there is no such file.
        PatchError: when the patch is malformed, about other files, or does not fit.
    """
    files = parse(patch_text).files
    file_patch = _choose(file, files)
    others = len(files) - 1
    if others:
        warn(f"{others} other file{'s' * (others > 1)} of the patch left aside")
    path = file or locate(file_patch)
    is_new = file_patch.kind == "add"
    text = "" if is_new and not path.exists() else read_source(path)
    if applied or fits(text, file_patch) == "reversed":
        before = place_hunks(text, file_patch.reversed())
        return Edit(path, before.text, text, before.hunks[-1].reversed())
    after = place_hunks(text, file_patch)
    return Edit(path, text, after.text, after.hunks[-1])


def locate(file_patch: FilePatch) -> Path:
    """Resolve the path that a patch names: against the git top level, then the working directory.

    Raises:
        InputError: when neither has it.
    """
    here = Path.cwd()
    tops = [folder for folder in (here, *here.parents) if (folder / ".git").exists()][:1]
    names = [name for name in (file_patch.new_path, file_patch.old_path) if name]
    for folder in (*tops, here):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    if file_patch.kind == "add" and names:
        return (tops or [here])[0] / names[0]
    raise InputError(
        f"the patch is about {file_patch.path}, which is not below {(tops or [here])[0]}",
        "run pie inside of the repository, or name the FILE",
    )


def _choose(file: Path | None, patches: Sequence[FilePatch]) -> FilePatch:
    """Pick the part of a patch that is about the file; without one, the last part."""
    usable = [part for part in patches if part.kind != "delete" and part.hunks]
    if not usable:
        raise PatchError("the patch changes no text that remains", "give one that edits a file")
    if file is None or len(usable) == 1:
        return usable[-1]
    named = [part for part in usable if file.absolute().as_posix().endswith("/" + part.path)]
    if not named:
        raise PatchError(
            f"the patch is not about {file}", f"it edits {', '.join(part.path for part in usable)}"
        )
    return max(named, key=lambda part: len(part.path))


def _read_patch(patch: Path) -> str:
    """Read a patch from a file, or from stdin for `-`."""
    if patch != Path("-"):
        return read_source(patch)
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise PatchError(
            f"the patch is not UTF-8 (byte {error.start})", "convert it first"
        ) from None


def _spots(spot: Spot, edit: Edit) -> tuple[Spot, Spot]:
    """Return where the spot stood before the edit, and where it stands behind it."""
    if spot.follows_edits and edit.lowest:
        return replace(spot, line=edit.lowest.old_stop), replace(spot, line=edit.lowest.new_stop)
    back = LineEdit.between(edit.after, edit.before)
    return spot.moved(back).within(edit.before), spot


def _spent_line(spent: Spent, *, with_edit: bool) -> str:
    before = (
        f", {spent.encode_before_ms:,.0f} ms on encoding the file before the edit"
        if with_edit
        else ""
    )
    advice = "; pie watch spends these once" if with_edit else ""
    return f"Spent before that: {spent.load_ms:,.0f} ms on loading{before}{advice}"
