"""A completion by a model that is loaded for it."""

from collections.abc import Sequence
from pathlib import Path

from pie_cli.cli.complete import CompleteOptions, Spent, complete_document
from pie_cli.cli.models import open_model
from pie_cli.cli.render import Renderer
from pie_cli.config import Settings
from pie_cli.prompt.assembly import ContextFile
from pie_cli.session import EditSession
from pie_cli.text.cursor import around
from pie_cli.text.edit import Edit
from pie_cli.watching.files import shown_path


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
    renderer = Renderer()
    context = [ContextFile(*other) for other in others]
    opened = open_model(settings, renderer)
    session = EditSession(opened.model, shown_path(path), settings)
    encode_before_ms = 0.0
    with renderer.progress("encoding") as report:
        if options.patch is None:
            prediction = session.open(
                edit.after, lambda done, total: report("tokens", done, total), context
            )
        else:
            before, after = around(session.cursor, edit)
            encode_before_ms = session.prime(
                edit.before, lambda done, total: report("tokens", done, total), context, before
            )
            prediction = session.update(edit, at=after)
    spent = Spent(opened.load_ms, encode_before_ms)
    if options.plain:
        renderer.bare(prediction.text)
        return
    if options.as_json:
        comparison = session.compare() if options.patch is not None else None
        model = session.model
        print(
            complete_document(session.path, model, prediction, spent=spent, comparison=comparison)
        )
        return
    renderer.prediction(session.path, edit.after, prediction)
    if options.patch is not None:
        comparison = session.compare()
        if comparison is not None:
            renderer.comparison(comparison)
    renderer.line(_spent_line(spent, with_edit=options.patch is not None))


def _spent_line(spent: Spent, *, with_edit: bool) -> str:
    before = (
        f", {spent.encode_before_ms:,.0f} ms on encoding the file before the edit"
        if with_edit
        else ""
    )
    advice = "; pie watch spends these once" if with_edit else ""
    return f"Spent before that: {spent.load_ms:,.0f} ms on loading{before}{advice}"
