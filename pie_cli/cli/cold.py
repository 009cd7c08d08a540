"""A completion by a model that is loaded for it."""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from pie_cli.cli.complete import CompleteOptions, Spent, complete_document
from pie_cli.cli.models import Opened, open_model
from pie_cli.cli.render import PROGRESS_AFTER_S, Renderer
from pie_cli.cli.starting import import_ms
from pie_cli.cli.words import duration, megabytes, what_changed
from pie_cli.config import Settings
from pie_cli.errors import PieError
from pie_cli.keeping import kept_caches
from pie_cli.prompt.assembly import ContextFile
from pie_cli.results import Comparison, Recompute
from pie_cli.session import EditSession
from pie_cli.text.cursor import around
from pie_cli.text.edit import Edit
from pie_cli.timing import since_start_ms
from pie_cli.watching.files import shown_path

WORTH_KEEPING_MS = 3_000
"""What importing and loading take together from which on a line says how to spend it once."""


def complete(
    settings: Settings,
    options: CompleteOptions,
    path: Path,
    edit: Edit,
    others: Sequence[tuple[str, str]],
) -> None:
    """Load the model, encode the text before the edit, predict after it, and show all that.

    Args:
        settings: model, cursor, strategy, comparison, limits.
        options: how it is shown.
        path: of the file.
        edit: from the text before to the one to predict in; nothing changes without a patch.
        others: paths and texts before the prompt.

    Raises:
        PieError: whatever the user can mend.
    """
    renderer = Renderer(explains=options.explains)
    context = [ContextFile(*other) for other in others]
    opened = open_model(settings, renderer)
    kept = kept_caches(opened.model, wanted=options.keeps and path.name != "-")
    session = EditSession(opened.model, shown_path(path), settings, kept and kept.of(path))
    _answer(session, options, edit, context, opened, renderer)
    # The answer does not wait for it.
    sys.stdout.flush()
    _keep(session, renderer, options)


def _answer(
    session: EditSession,
    options: CompleteOptions,
    edit: Edit,
    context: Sequence[ContextFile],
    opened: Opened,
    renderer: Renderer,
) -> None:
    """Predict, and show the line and what it took."""
    has_patch = options.patch is not None
    encode_before_ms = 0.0
    with renderer.progress("reading", after_s=PROGRESS_AFTER_S) as shown:
        encoded = partial(shown, "")
        if not has_patch:
            prediction = session.open(edit.after, encoded, context)
        else:
            before, after = around(session.cursor, edit)
            encode_before_ms = session.prime(edit.before, encoded, context, before)
            prediction = session.update(edit, at=after)
    spent = Spent(opened.load_ms, encode_before_ms, session.from_disk)
    if options.plain:
        renderer.bare(prediction.text)
        return
    how = session.comparison_within(1e3 * options.compare_limit_s) if has_patch else "none"
    if not options.as_json:
        # The answer does not wait for its comparison.
        renderer.headline(session.path, what_changed(prediction))
        renderer.prediction(session.path, edit.after, prediction, compares=how != "none")
    comparison, full = _compared(session, how, renderer, is_of_interest=has_patch)
    if options.as_json:
        print(
            complete_document(
                session.path,
                session.model,
                prediction,
                spent=spent,
                comparison=comparison,
                full=full,
            )
        )
        return
    if comparison is not None:
        renderer.comparison(comparison)
    if full is not None and not full.measured:
        renderer.not_compared(full)
    reading = {"reading the file": prediction.timings_ms.first_token}
    if has_patch:
        reading = {"reading the file before the edit": encode_before_ms}
    if has_patch and session.from_disk and options.explains:
        renderer.aside(f"  {session.from_disk:,} tokens of that text were read from disk")
    if comparison is not None:
        reading["comparing"] = comparison.timings_ms.line
    renderer.aside(f"  {_spent_line(opened, reading)}")


def _keep(session: EditSession, renderer: Renderer, options: CompleteOptions) -> None:
    """Keep the cache for the next run; where that fails, the answer is no worse for it."""
    try:
        size = session.keep()
    except PieError as error:
        renderer.note(f"{error.cause}; {error.remedy}")
        return
    if size and not (options.plain or options.as_json):
        renderer.aside(f"  kept the cache for the next run ({megabytes(size)})")


def _compared(
    session: EditSession, how: str, renderer: Renderer, *, is_of_interest: bool
) -> tuple[Comparison | None, Recompute | None]:
    """Compare the prediction, and tell what full recompute takes."""
    estimate = session.full_recompute_ms()
    if not is_of_interest or estimate is None or session.settings.compare == "none":
        return None, None
    with renderer.progress("comparing", after_s=PROGRESS_AFTER_S) as shown:
        comparison = session.compare(on_progress=partial(shown, ""), how=how)
    if comparison is not None and comparison.strategy == "full":
        return comparison, Recompute(comparison.timings_ms.line, measured=True)
    return comparison, Recompute(estimate, measured=False)


def _spent_line(opened: Opened, more: Mapping[str, float]) -> str:
    """Say what the call took from the process's start, and how to spend that once."""
    weights = opened.model.weights
    loading = "loading the model" + f" with weights in {weights}" * (weights != "full")
    spent = {"importing torch and transformers": import_ms(), loading: opened.load_ms, **more}
    parts = ", ".join(f"{duration(ms)} {what}" for what, ms in spent.items())
    line = f"{duration(since_start_ms())} in all: {parts}"
    if import_ms() + opened.load_ms < WORTH_KEEPING_MS:
        return line
    return f"{line}; a running `pie watch` or `pie serve` keeps it all warm"
