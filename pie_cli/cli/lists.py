"""Lists that options take: entries with commas between."""

from pie_cli.errors import InputError


def entries(text: str) -> tuple[str, ...]:
    """Split a list; what is empty or there twice is dropped."""
    stripped = (entry.strip() for entry in text.split(","))
    return tuple(dict.fromkeys(entry for entry in stripped if entry))


def numbers(option: str, text: str) -> tuple[int, ...]:
    """Read whole numbers; underscores may stand for thousands.

    Raises:
        InputError: an entry that is none.
    """
    try:
        return tuple(dict.fromkeys(int(entry) for entry in entries(text)))
    except ValueError:
        raise InputError(
            f"{option} {text!r} is no list of whole numbers", "write it as 1024,4096"
        ) from None
