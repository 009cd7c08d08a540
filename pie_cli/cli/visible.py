"""What others wrote, made fit for a terminal: the one way for it to get there.

Names of files, models, tensors and branches, texts, predictions and the causes of errors may hold
anything: escapes that write to the clipboard or hide a link, marks that turn a line around,
characters that show nothing at all, megabytes without a newline.
"""

import re
from typing import Final

LONGEST: Final = 2_000
"""Characters of one thing that are shown; of more, the beginning and the end."""

# Control characters, what breaks or reorders lines on screen, bytes that are no UTF-8, and what
# takes up no room there or blank room only: by Unicode's own list of default ignorable code points.
_HIDDEN: Final = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufffb\ufffe\uffff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def visible(text: str, longest: int = LONGEST) -> str:
    """Spell out what steers a terminal or cannot be seen, and leave out the middle of what is long.

    Tabs stay, newlines do not: what is shown is one line.
    """
    return _HIDDEN.sub(lambda match: _spelled(match.group()), shortened(text, longest))


def visible_lines(text: str) -> str:
    """Do the same for each line of a text of ours, such as a traceback."""
    return "\n".join(visible(line) for line in text.split("\n"))


def shortened(text: str, longest: int) -> str:
    """Leave out the middle of a long text, and say how much that is."""
    if len(text) <= longest:
        return text
    head, tail = text[: longest * 3 // 4], text[-(longest // 4) :]
    return f"{head}…({len(text) - len(head) - len(tail):,} characters)…{tail}"


def _spelled(character: str) -> str:
    code = ord(character)
    if character == "\n":
        return "\\n"
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
