"""The documentation names every command, option, exit code and module, and its links hold."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from pie_cli.cli.app import app
from pie_cli.errors import ExitCode

ROOT = Path(__file__).parents[1]
CLI = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


def with_subcommands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield prefix + name, command
        # By what it has: typer brings a copy of click's classes.
        if hasattr(command, "commands"):
            yield from with_subcommands(command, f"{name} ")


COMMANDS = dict(with_subcommands(typer.main.get_group(app)))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_and_option_is_documented(name: str) -> None:
    assert f"pie {name}" in CLI
    for parameter in COMMANDS[name].params:
        for option in parameter.opts:
            if option.startswith("--") and option != "--help":
                assert f"`{option}" in CLI or f"{option} " in CLI, option


def test_no_option_is_documented_that_is_not_there() -> None:
    there = {o for c in COMMANDS.values() for p in c.params for o in p.opts}
    there |= {"--help", "--version", "--install-completion", "--show-completion"}
    assert set(re.findall(r"--[a-z][a-z-]+", CLI)) <= there


def test_every_exit_code_is_documented() -> None:
    for code in ExitCode:
        assert f"| {code.value} | {code.name} |" in CLI


def test_defaults_in_the_tables_are_those_of_the_commands() -> None:
    defaults: dict[str, set[str]] = {}
    for parameter in (p for c in COMMANDS.values() for p in c.params):
        for option in parameter.opts:
            defaults.setdefault(option, set()).add(str(parameter.default))
    for option, default in re.findall(
        r"`(--[a-z-]+)[^|\n]*?(?:\\\|[^|\n]*?)*` \| `?([\w.,-]+)`? \|", CLI
    ):
        if default in ("off", "all", "-", "the"):
            continue
        assert default in defaults[option], option


def test_every_module_stands_in_the_architecture_in_its_own_words() -> None:
    """docs/architecture.md repeats the first line of each module's docstring."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for path in sorted((ROOT / "pie_cli").rglob("*.py")):
        if path.name == "__init__.py":
            continue
        summary = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")
        name = path.relative_to(ROOT / "pie_cli").as_posix()
        assert f"| `{name}` | {summary[0]} |" in text, f"| `{name}` | {summary[0]} |"


@pytest.mark.parametrize(
    "page", ["README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if "://" not in target:
            assert (ROOT / page).parent.joinpath(target).exists(), target
