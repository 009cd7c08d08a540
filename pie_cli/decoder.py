"""How the line after a prompt is decoded: what ends it, and how it may begin."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from pie_cli.config import Settings
from pie_cli.editable import EditableModel
from pie_cli.engine.protocol import Decoding, ForcedPrefix, LineEnd, LineStart
from pie_cli.plan.drafts import LookUp
from pie_cli.prompt.assembly import Prompt, header
from pie_cli.text.answer import Extent
from pie_cli.text.cursor import Place, extent_of
from pie_cli.text.done import ends_with_known_word, looks_done
from pie_cli.text.indent import next_indent

_LOOKS_DONE: Final = 2.5
"""Margins that what goes on with a line needs where the line looks done."""

_KNOWN_WORD: Final = 4
"""Margins that what goes on with a line's last word needs where that word is known."""

_NEAR_CHARS: Final = 100_000
"""Characters on each side of the cursor in which words are known from."""


class LineDecoder:
    """Makes the decodings of one document's prompts.

    Args:
        model: prepared.
        path: of the file, whose name tells the language.
        settings: how long a prediction gets, and what finishes a line.
    """

    def __init__(self, model: EditableModel, path: str, settings: Settings) -> None:
        self._tokenizer = model.tokenizer
        self._path = path
        self._settings = settings
        self._decoding = Decoding(
            model.tokenizer.decode_continuation,
            model.eos_ids | (model.fim.stop_ids if model.fim else frozenset()),
            self.max_tokens,
            settings.max_tokens if settings.lines > 1 else None,
        )

    @property
    def max_tokens(self) -> int:
        """Most tokens of a prediction."""
        return self._settings.max_tokens * self._settings.lines

    def decoding(self, prompt: Prompt, text: str, place: Place) -> Decoding:
        """Return how the line after a prompt is decoded.

        Args:
            prompt: of the text up to the cursor.
            text: the file's.
            place: of the cursor in it.
        """
        headers = frozenset(map(header, (self._path, *prompt.context)))
        extent = replace(extent_of(text, place, self._settings.lines), headers=headers)
        tail = prompt.token_ids[prompt.sides.prefix.start : prompt.sides.prefix.stop]
        decoding = replace(self._decoding, extent=extent, look_up=LookUp(prompt.token_ids, tail))
        if place.begins == "either":
            decoding = replace(decoding, line_end=self._line_end(text, place, extent))
        if place.begins == "either" or place.position.column == 1:
            # At a line's beginning what follows may be the body of what is asked for.
            below = extent.below if place.begins == "either" else None
            indent = next_indent(text[: place.offset], self._path, below)
            start = LineStart(indent, self._tokenizer.tokens_beginning, self._spell)
            decoding = replace(decoding, line_start=start)
        healed = prompt.healed
        if not healed.token_ids:
            return decoding
        forced = ForcedPrefix(healed.text, self._tokenizer.tokens_starting_with, self._spell)
        spelled = len(healed.token_ids)
        line_tokens = decoding.line_tokens and decoding.line_tokens + spelled
        max_tokens = decoding.max_tokens + spelled
        return replace(decoding, forced=forced, max_tokens=max_tokens, line_tokens=line_tokens)

    def draft(self, last: tuple[int, ...], prompt: Prompt, decoding: Decoding) -> tuple[int, ...]:
        """Return a draft that spells what healing took back.

        Args:
            last: token ids of the last line, or none.
            prompt: that it may follow.
            decoding: of the prompt; its look-up has a proposal where the last line cannot follow.
        """
        healed = prompt.healed
        spelled = b"".join(self._pieces(last)) if healed.token_ids else b""
        if last and spelled.startswith(healed.text.encode()):
            return last
        found = decoding.look_up.propose(healed.token_ids) if decoding.look_up else ()
        return (*healed.token_ids, *found)

    def _line_end(self, text: str, place: Place, extent: Extent) -> LineEnd:
        """Return by how much what goes on with a line must be ahead: more where it looks done."""
        least = self._settings.line_margin
        margin = least * (_LOOKS_DONE if looks_done(extent.typed) else 1)
        begun = place.offset - len(extent.typed)
        above = text[max(0, begun - _NEAR_CHARS) : begun]
        below = text[place.resumes : place.resumes + _NEAR_CHARS]
        is_known = ends_with_known_word(extent.typed, above, below)
        word_margin = least * _KNOWN_WORD if is_known else margin
        return LineEnd(self._tokenizer.line_ends, margin, word_margin)

    def _spell(self, token_id: int) -> bytes:
        return self._pieces((token_id,))[0]

    def _pieces(self, token_ids: Sequence[int]) -> list[bytes]:
        return self._tokenizer.pieces(token_ids)
