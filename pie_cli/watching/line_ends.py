"""With which line ends git checks a file out."""

import os
import subprocess
from pathlib import Path

_SECONDS = 10


def checkout_ends(path: Path) -> str:
    r"""Ask git whether it converts a file's line ends, and to which.

    It does where attributes make the file text, or where `core.autocrlf` is set and no attribute
    says that it is not; then it compares patches with the file under LF.

    Args:
        path: of the file, which need not be there.

    Returns:
        "\r\n" or "\n"; empty where it converts none, or where there is no git.
    """
    attributes = dict(
        line.rsplit(": ", 2)[1:]
        for line in _git(path, "check-attr", "text", "eol", "--", path.name).splitlines()
        if line.count(": ") >= 2
    )
    text, eol = attributes.get("text", "unspecified"), attributes.get("eol", "unspecified")
    autocrlf = _git(path, "config", "--get", "core.autocrlf").strip().lower()
    autocrlf = "true" if autocrlf in ("yes", "on", "1") else autocrlf
    if text == "unset" or (
        text == "unspecified" and eol == "unspecified" and autocrlf not in ("true", "input")
    ):
        return ""
    if eol in ("crlf", "lf"):
        return "\r\n" if eol == "crlf" else "\n"
    if autocrlf in ("true", "input"):
        return "\r\n" if autocrlf == "true" else "\n"
    core_eol = _git(path, "config", "--get", "core.eol").strip().lower()
    native = os.linesep if core_eol in ("", "native") else ""
    return native or ("\r\n" if core_eol == "crlf" else "\n")


def _git(path: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=path.parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace")
