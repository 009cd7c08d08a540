"""`pie complete`: one completion, after a patch or plain."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pie_cli.cli.documents import (
    ModelFacts,
    comparison_document,
    dump,
    prediction_document,
    recompute_document,
)
from pie_cli.cli.starting import import_ms, importing
from pie_cli.cli.words import what_changed
from pie_cli.config import COMPARE_LIMIT_S, Settings
from pie_cli.errors import InputError
from pie_cli.results import Comparison, Prediction, Recompute
from pie_cli.serving.warm import Question, WarmAnswer, ask
from pie_cli.text.cursor import Cursor
from pie_cli.text.edit import Edit
from pie_cli.timing import since_start_ms
from pie_cli.watching.files import read_bytes, read_source, real_path, shown_path, source_text

if TYPE_CHECKING:
    from pie_cli.text.reading import Side
    from pie_cli.watching.patched import PatchedFile

_STDIN = Path("-")


@dataclass(frozen=True)
class Spent:
    """What a cold call spends before the edit comes.

    Attributes:
        load_ms: on loading the model.
        encode_before_ms: on encoding the text before the edit.
        from_disk: tokens of the first encoding that an earlier run had kept.
    """

    load_ms: float
    encode_before_ms: float
    from_disk: int = 0


@dataclass(frozen=True)
class CompleteOptions:
    """What is completed, and how it is shown.

    Attributes:
        file: FILE; `-` for a text from stdin.
        patch: a unified diff; `-` for one from stdin.
        stdin_filename: what a text from stdin is called.
        context: files that come before the prompt.
        applied: FILE already holds the patch, as the user knows.
        not_applied: FILE does not hold it yet, as the user knows.
        as_json: print JSON instead of text.
        plain: print the line alone.
        cold: load the model, also where a running pie has it.
        compare_limit_s: of work, beyond which an answer is not compared with full recompute.
        explains: tell of the prediction in the method's vocabulary as well.
        keeps: keep the cache on disk, if it is exact, and begin with what is kept.
    """

    file: Path | None = None
    patch: Path | None = None
    stdin_filename: Path | None = None
    context: tuple[Path, ...] = ()
    applied: bool = False
    not_applied: bool = False
    as_json: bool = False
    plain: bool = False
    cold: bool = False
    compare_limit_s: int = COMPARE_LIMIT_S
    explains: bool = False
    keeps: bool = False

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        from_stdin = self.file == _STDIN
        if from_stdin and self.patch is not None:
            raise InputError("a patch is about a file on disk", "leave out - or --edit")
        if self.stdin_filename is not None and not from_stdin:
            raise InputError(
                "--stdin-filename names a text from stdin", "give - as the FILE, or leave it out"
            )
        if self.compare_limit_s < 0:
            raise InputError(f"--compare-limit is {self.compare_limit_s}", "it must be at least 0")
        if self.as_json and self.plain:
            raise InputError("--json and --plain exclude each other", "give one of them")


def run(settings: Settings, options: CompleteOptions, *, only_warm: bool = False) -> bool:
    """Complete FILE, or the file that the patch names, after the patch.

    Args:
        settings: model, cursor, strategy, comparison, limits.
        options: what is completed, and how it is shown.
        only_warm: load no model: complete where a running pie answers, or not at all.

    Returns:
        Whether it was completed.

    Raises:
        PieError: whatever the user can mend.
    """
    path, edit, notes = _subject(options)
    # Refuse a cursor outside the file before a model is loaded, or asked.
    Cursor.parse(settings.at).offset(edit.after)
    others = tuple(
        (shown_path(other), read_source(other))
        for other in options.context
        if real_path(other) != real_path(path)
    )
    found = None
    if not options.cold:
        # What is asked about is another file than that on disk where a text came from stdin.
        question = Question(
            str(path.absolute()), shown_path(path), edit.before, edit.after, settings.at, others
        )
        found = ask(settings, question)
    if found is None and only_warm:
        return False
    if notes:
        from pie_cli.cli.render import Renderer

        for note in notes:
            Renderer().note(note)
    if found is not None:
        _show_warm(found, path, edit, options)
    else:
        with importing():
            from pie_cli.cli.cold import complete

        complete(settings, options, path, edit, others)
    return True


def _show_warm(found: WarmAnswer, path: Path, edit: Edit, options: CompleteOptions) -> None:
    """Show what a running pie answered, and that it did."""
    shown = shown_path(path)
    if options.as_json:
        print(complete_document(shown, found, found.prediction, warm=True))
        return
    if options.plain and not sys.stdout.isatty():
        # Without the renderer: that takes as long to load as all the rest.
        print(found.prediction.text, end="\n" * bool(found.prediction.text))
        return
    from pie_cli.cli.render import Renderer

    renderer = Renderer(explains=options.explains)
    if options.plain:
        renderer.bare(found.prediction.text)
        return
    renderer.headline(shown, what_changed(found.prediction))
    renderer.prediction(shown, edit.after, found.prediction)
    renderer.aside(
        f"  answered by {found.name} in the running pie (process {found.process_id});"
        " --cold loads it again"
    )


def complete_document(
    path: str,
    model: ModelFacts,
    prediction: Prediction,
    *,
    spent: Spent = Spent(0.0, 0.0),
    comparison: Comparison | None = None,
    full: Recompute | None = None,
    warm: bool = False,
) -> str:
    """Return the one JSON document that `--json` prints.

    Args:
        path: of the file, as results name it.
        model: that answered.
        prediction: its answer.
        spent: before the edit.
        comparison: with recomputing.
        full: what full recompute takes.
        warm: whether a running pie answered.
    """
    return dump(
        {
            **prediction_document(path, model, prediction),
            "warm": warm,
            "import_ms": round(import_ms(), 3),
            "load_ms": round(spent.load_ms, 3),
            "encode_before_ms": round(spent.encode_before_ms, 3),
            "from_disk": spent.from_disk,
            "comparison": comparison_document(comparison) if comparison else None,
            "full_recompute": recompute_document(full),
            "total_ms": round(since_start_ms(), 3),
        },
        indent=2,
    )


def read_patch(patch: Path) -> bytes:
    """Read a patch from a file, or from stdin for `-`.

    Raises:
        InputError: it cannot be read.
    """
    if patch != _STDIN:
        return read_bytes(patch)
    return _read_stdin("a patch", "name a file with --edit")


def _subject(options: CompleteOptions) -> tuple[Path, Edit, list[str]]:
    """Return the path of what is completed, the edit to complete after, and what to say of it."""
    file, patch = options.file, options.patch
    side = _side(
        applied=options.applied, not_applied=options.not_applied, has_patch=patch is not None
    )
    if patch is not None:
        from pie_cli.watching.patched import find_edit

        found = find_edit(file, read_patch(patch), side)
        return found.path, found.reading.edit, list(_notes(found, asked=side is not None))
    if file is None:
        raise InputError("nothing to complete", "name a FILE, or a patch with --edit")
    if file == _STDIN:
        path = options.stdin_filename or Path("stdin")
        text = source_text(_read_stdin("a text", "name a FILE"), "stdin")
        # An empty buffer is one; of a command that wrote nothing it should be known, too.
        notes = [] if text else ["stdin is empty: what follows is about an empty file"]
    else:
        path, text, notes = file, read_source(file), []
    return path, Edit(text, text, ()), notes


def _read_stdin(what: str, remedy: str) -> bytes:
    if sys.stdin is None:
        raise InputError(f"there is no stdin to read {what} from", remedy)
    try:
        return sys.stdin.buffer.read()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read stdin: {error}", remedy) from None


def _side(*, applied: bool, not_applied: bool, has_patch: bool) -> "Side | None":
    """Read what the user says of the file and the patch."""
    if not (applied or not_applied):
        return None
    if not has_patch:
        option = "--applied" if applied else "--not-applied"
        raise InputError(f"{option} is about a patch", "name the patch with --edit")
    if applied and not_applied:
        raise InputError("--applied and --not-applied exclude each other", "give one of them")
    return "applied" if applied else "not applied"


def _notes(found: "PatchedFile", *, asked: bool) -> Iterator[str]:
    """Say what was understood of a patch."""
    reading, path = found.reading, shown_path(found.path)
    if found.other_files:
        plural = "s" * (found.other_files > 1)
        yield f"the patch also changes {found.other_files} other file{plural}, not predicted in"
    off = ""
    if reading.offset:
        off = f", {reading.offset} line{'s' * (reading.offset > 1)} off its stated places"
    if reading.is_open:
        yield (
            f"the patch fits {path} both as applied already and as not applied; taken as "
            f"{reading.side}{off}: say --applied or --not-applied"
        )
    elif not asked:
        holds = "holds the patch already" if reading.side == "applied" else "is without the patch"
        yield f"{path} {holds}{off}"
