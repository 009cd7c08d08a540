"""Whether a text holds a patch already or not, decided as git would."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from pie_cli.text.applying import PatchDoesNotApply, Placed, is_blob, locate, with_lf
from pie_cli.text.edit import Edit
from pie_cli.text.series import FileHistory

Side = Literal["applied", "not applied"]
"""Whether the text holds the patch, or comes before it."""


@dataclass(frozen=True)
class Reading:
    """What a patch was taken to do.

    Attributes:
        edit: from the text without the patch to the text with it.
        side: which of the two the text at hand is.
        offset: lines by which the hunks were found off their stated places, all added up.
        is_sure: git's name for the text says so.
        is_open: the other side fits as well, and nothing decides between them.
    """

    edit: Edit
    side: Side
    offset: int
    is_sure: bool
    is_open: bool = False

    @property
    def rank(self) -> tuple[bool, int, bool]:
        """What to sort readings of different texts by, the best first."""
        return not self.is_sure, self.offset, self.side == "not applied"


@dataclass(frozen=True)
class Fit:
    """Both sides of a patch tried on one text.

    Attributes:
        forward: the patch applied, if it can be.
        backward: the patch taken back, if it can be.
        known: what git's name for the text says, if anything.
        refusal: why it cannot be applied, or taken back where only that was tried.
    """

    forward: Placed | None
    backward: Placed | None
    known: Side | None
    refusal: PatchDoesNotApply | None

    @property
    def only(self) -> Side | None:
        """The side that fits where the other does not."""
        if self.forward and self.backward:
            return None
        return "not applied" if self.forward else "applied" if self.backward else None


def fit(
    text: str | None,
    history: FileHistory,
    ends: Callable[[], str],
    sides: tuple[Side, ...] = ("not applied", "applied"),
) -> Fit:
    r"""Try a file's patch on its text, forward and backward.

    Line ends must match; only where nothing fits so are they left out of account: a patch that is
    CRLF throughout may have been converted on its way, and git compares with LF what it checks
    out with CRLF.

    Args:
        text: of the file; None where it is not there.
        history: what the patch does to it.
        ends: tells the line ends with which git checks the file out, "" where it converts none;
            asked only when it matters.
        sides: which ones to try.

    Raises:
        PatchError: the patch is binary.
    """
    known = _known(text, history)
    in_git = _known(with_lf(text), history) if text and known is None else None
    first: Fit | None = None
    for spelled, new_ends in _spellings(text, history, ends, is_converted=in_git is not None):
        found = _fit(text, spelled, new_ends, sides, known or in_git)
        if found.forward or found.backward:
            return found
        first = first or found
    assert first is not None
    return first


def _spellings(
    text: str | None, history: FileHistory, ends: Callable[[], str], *, is_converted: bool
) -> Iterator[tuple[FileHistory, str]]:
    """Give the ways to take line ends, each with what `locate` is told of them."""
    # git writes a new file with the line ends that it would check out.
    yield history, "\r\n" if text is None and ends() == "\r\n" else ""
    if any(part.crlf for part in history.parts):
        yield history.with_lf(), ""
    elif text and "\r\n" in text and not history.has_crlf and (is_converted or ends()):
        yield history, "\r\n" if 2 * text.count("\r\n") > text.count("\n") else "\n"


def decide(found: Fit, others: Callable[[], Side | None] = lambda: None) -> Reading:
    """Choose between both sides of a patch.

    Where both fit, the file's content decides if git's name for it is in the patch; then the side
    whose hunks are at their stated places; then the patch's other files. Else it counts as not
    applied, and the reading is open.

    Args:
        found: both sides tried.
        others: tells which side the other files of the patch are on.

    Raises:
        PatchDoesNotApply: neither side fits.
    """
    if found.only is None and not found.forward:
        assert found.refusal is not None
        raise found.refusal
    side = found.only or found.known
    is_open = False
    if side is None:
        assert found.forward is not None
        assert found.backward is not None
        forward, backward = found.forward.offset, found.backward.offset
        if (forward == 0) != (backward == 0):
            side = "applied" if backward == 0 else "not applied"
        else:
            side = others()
        if side is None:
            side, is_open = ("applied" if backward < forward else "not applied"), True
    placed = found.backward if side == "applied" else found.forward
    assert placed is not None
    edit = placed.edit.reversed() if side == "applied" else placed.edit
    return Reading(edit, side, placed.offset, found.known == side, is_open)


def _known(text: str | None, history: FileHistory) -> Side | None:
    """Tell by the names that git gives to contents on which side of a patch a text is."""
    if text is None:
        return None
    before = is_blob(text, history.parts[0].ids[0])
    after = is_blob(text, history.parts[-1].ids[1])
    if before == after:
        return None
    return "not applied" if before else "applied"


def _fit(
    text: str | None,
    history: FileHistory,
    ends: str,
    sides: tuple[Side, ...],
    known: Side | None,
) -> Fit:
    forward = backward = refusal = None
    if "not applied" in sides:
        try:
            forward = locate(text, *history.parts, ends=ends)
        except PatchDoesNotApply as error:
            refusal = error
    if "applied" in sides:
        try:
            backward = locate(text, *history.reversed().parts, ends=ends)
        except PatchDoesNotApply as error:
            # The one that says more: lines that are almost there, or a hunk further down.
            if refusal is None or _telling(error) > _telling(refusal):
                refusal = error
    return Fit(forward, backward, known, refusal)


def _telling(refusal: PatchDoesNotApply) -> tuple[bool, int]:
    return refusal.is_close, refusal.hunk
