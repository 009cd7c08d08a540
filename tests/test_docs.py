"""The documentation names every command, option, default, exit code and module, and links hold.

Each check is a function from a text to what is wrong in it, so that the controls can show that a
wrong text is found.
"""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
import typer

from pie_cli.cli.app import app
from pie_cli.errors import ExitCode

ROOT = Path(__file__).parents[1]
CLI = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def with_subcommands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield prefix + name, command
        # By what it has: typer brings a copy of click's classes.
        if hasattr(command, "commands"):
            yield from with_subcommands(command, f"{prefix}{name} ")


COMMANDS = dict(with_subcommands(typer.main.get_group(app)))  # type: ignore[arg-type]


def options_of(command: click.Command) -> dict[str, click.Parameter]:
    return {
        option: parameter
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("--") and option != "--help"
    }


def sections(text: str) -> dict[str, str]:
    """Split a page at its second-level headings; what is before them has none."""
    start, *parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return {"": start, **dict(zip(parts[::2], parts[1::2], strict=True))}


def rows(section: str) -> Iterator[tuple[str, str | None]]:
    """Give each option of a section's tables, with its default where the table has that column."""
    with_default = False
    for line in section.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
        if cells[0] == "option":
            with_default = cells[1] == "default"
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", cells[0] if "|" in line else ""):
            yield option, cells[1] if with_default else None


def said(default: object) -> set[str]:
    """Return what a table may say of a default; words without a code mark describe a choice."""
    if default in (None, False, ()):
        return {"-", "off", "words"}
    return {str(default), f"`{default}`"}


def wrong_defaults(text: str) -> list[str]:
    """Return defaults that a table has otherwise than the command, and options that are none.

    A table in a command's section is about that command; one elsewhere is about all commands that
    have the option and no row of their own for it.
    """
    wrong = []
    parts = sections(text)
    for title, section in parts.items():
        own = {name: c for name, c in COMMANDS.items() if f"pie {name}" == title}
        for option, default in rows(section):
            having = {n: c for n, c in (own or COMMANDS).items() if option in options_of(c)}
            if not having:
                wrong.append(f"{title}: {option} is no option")
            for name, command in having.items():
                if not own and option in dict(rows(parts.get(f"pie {name}", ""))):
                    continue
                found = said(getattr(options_of(command)[option], "default", None))
                plain = default is None or ("words" in found and "`" not in default.split()[0])
                if not plain and default not in found and default.split()[0] not in found:
                    wrong.append(f"{title}: {option} is {default}, not {sorted(found)}")
    return wrong


def undocumented(text: str) -> list[str]:
    parts = sections(text)
    shared = {o for title in parts if not title.startswith("pie ") for o, _ in rows(parts[title])}
    missing = []
    for name, command in COMMANDS.items():
        home = parts.get(f"pie {name}") or parts.get(f"pie {name.split()[0]}")
        if home is None or f"pie {name}" not in text:
            missing.append(f"pie {name}")
            continue
        missing += [
            f"pie {name} {option}"
            for option in options_of(command)
            if option not in shared and not re.search(rf"{option}(?![\w-])", home)
        ]
    return missing


def unknown_options(text: str) -> list[str]:
    there = {option for command in COMMANDS.values() for option in options_of(command)}
    there |= {"--help", "--version", "--install-completion", "--show-completion"}
    # What is code of other tools is not ours.
    ours = re.sub(r"`(?:git|pip|apt|npm|accelerate|curl) [^`]*`", "", text)
    return sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", ours)) - there)


def wrong_modules(text: str) -> list[str]:
    """Return rows that are missing, or name a module that is not there or in other words."""
    expected = set()
    for path in sorted((ROOT / "pie_cli").rglob("*.py")):
        if path.name == "__init__.py":
            continue
        summary = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")
        expected.add(f"| `{path.relative_to(ROOT / 'pie_cli').as_posix()}` | {summary[0]} |")
    found = set(re.findall(r"^\| `[\w/]+\.py` \|.*\|$", text, re.MULTILINE))
    named = set(re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py)`", text))
    gone = {
        name
        for name in named
        if not (ROOT / "pie_cli" / name).exists() and not (ROOT / name).exists()
    }
    return sorted(expected ^ found) + sorted(gone)


def wrong_exit_codes(text: str) -> list[str]:
    there = {f"| {code.value} | {code.name} |" for code in ExitCode}
    found = set(re.findall(r"^\| \d+ \| [A-Z]+ \|", text, re.MULTILINE))
    return sorted(there ^ found)


CHECKS: dict[str, tuple[Callable[[str], list[str]], str]] = {
    "defaults": (wrong_defaults, CLI),
    "options": (undocumented, CLI),
    "unknown options": (unknown_options, CLI),
    "exit codes": (wrong_exit_codes, CLI),
    "modules": (wrong_modules, ARCHITECTURE),
}


@pytest.mark.parametrize("check", CHECKS)
def test_the_documentation_is_right(check: str) -> None:
    find, text = CHECKS[check]
    assert find(text) == []


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        ("defaults", "| `pie+seam+tail+again` |", "| `pie+tail` |"),
        (
            "defaults",
            "| `full,prefix,cfe,pie,pie+seam+tail+again` | what to measure",
            "| `full` | what to measure",
        ),
        ("defaults", "| `--repeats N` | 5 |", "| `--repeats N` | 6 |"),
        ("defaults", "| `--repeats N` | 5 |", "| `--repetitions N` | 5 |"),
        ("defaults", "| `--max-tokens N` | 16 |", "| `--max-tokens N` | 64 |"),
        ("options", "--context-budget", "--budget"),
        ("options", "## pie demo", "## pie show"),
        ("unknown options", "`--resume`", "`--continue`"),
        ("exit codes", "| 4 | PATCH |", "| 4 | PATCHES |"),
        ("exit codes", "| 4 | PATCH |", "| 9 | PATCH |"),
        ("modules", "| `session.py` | One document's state", "| `session.py` | One file's state"),
        ("modules", "`text/edit.py` finds", "`editing/hunks.py` finds"),
    ],
)
def test_a_wrong_text_is_found(check: str, right: str, wrong: str) -> None:
    """The controls."""
    find, text = CHECKS[check]
    assert right in text
    assert find(text.replace(right, wrong)) != []


@pytest.mark.parametrize(
    "page", ["README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if "://" not in target:
            assert (ROOT / page).parent.joinpath(target).exists(), target
