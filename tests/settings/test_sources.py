"""Settings from five places: later ones win, and what no setting can be is refused by name."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pie_cli.cli.app import app
from pie_cli.errors import ExitCode
from pie_cli.settings.keys import KEYS
from pie_cli.settings.sources import find_project_file, given, resolve


@pytest.fixture
def user_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user's own file would be; the working directory is a project below."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config" / "pie").mkdir(parents=True)
    (tmp_path / "project" / "src").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project" / "src")
    return tmp_path / "config" / "pie" / "pie.toml"


def configured(**environment: str) -> Result:
    return CliRunner().invoke(app, ["config", "--json"], env=environment)


def value_of(name: str, result: Result) -> tuple[object, str]:
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["settings"][name]
    return found["value"], found["source"]


def test_later_places_win_and_each_value_says_where_it_is_from(
    user_file: Path, tmp_path: Path
) -> None:
    assert value_of("max-tokens", configured()) == (64, "default")
    user_file.write_text("max-tokens = 1\n")
    assert value_of("max-tokens", configured()) == (1, str(user_file))
    project = tmp_path / "project" / "pyproject.toml"
    project.write_text("[tool.pie]\nmax-tokens = 2\n")
    assert value_of("max-tokens", configured()) == (2, str(project))
    own = tmp_path / "project" / "pie.toml"
    own.write_text("max-tokens = 3\n")
    assert value_of("max-tokens", configured()) == (3, str(own))
    assert value_of("max-tokens", configured(PIE_MAX_TOKENS="4")) == (4, "PIE_MAX_TOKENS")


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("PIE_PORT", "65536", "at most 65,535"),
        ("PIE_PORT", "-1", "at least 0"),
        ("PIE_LATENCY", "-3", "at least 0"),
    ],
)
def test_a_number_out_of_range_is_told_its_range(
    user_file: Path, variable: str, value: str, says: str
) -> None:
    result = configured(**{variable: value})
    assert result.exit_code == ExitCode.INPUT
    assert f"is {value}" in result.stderr
    assert says in result.stderr


def test_an_option_wins_over_all_of_them(
    user_file: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    Path("area.py").write_text("x = 1\n")
    user_file.write_text(f"model = '{tiny_checkpoint}'\ndevice = 'cpu'\nmax-tokens = 1\n")

    def line(*options: str) -> str:
        result = CliRunner().invoke(app, ["complete", "area.py", "--plain", *options])
        assert result.exit_code == 0, result.output
        return result.stdout

    assert len(line()) < len(line("--max-tokens", "20"))
    refused = CliRunner().invoke(app, ["complete", "area.py", "--max-tokens", "0"])
    assert refused.exit_code == ExitCode.INPUT


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max-token = 3", "did you mean max-tokens"),
        ("max_tokens = 3", "did you mean max-tokens"),
        ("zzzz = 3", "zzzz is no setting"),
        ("max-tokens = 0", "max-tokens is 0"),
        ("max-tokens = '3'", "a whole number"),
        ("max-tokens = true", "a whole number"),
        ("trust-remote-code = 1", "true or false"),
        ("context = 'one'", "a list of paths"),
        ("device = 'warp'", "unknown device 'warp'"),
        ("strategy = 'guess'", "guess"),
        ("cache-memory = 'much'", "'much' is no size"),
        ("model = ", "no TOML"),
        ("[model]\nname = 1", "must be text"),
    ],
)
def test_what_no_setting_can_be_is_refused_by_name_and_place(
    user_file: Path, text: str, said: str
) -> None:
    user_file.write_text(text + "\n")
    result = configured()
    assert result.exit_code == ExitCode.INPUT
    assert str(user_file) in result.stderr.replace("\n", "")
    assert said in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PIE_MODLE", "x", "did you mean PIE_MODEL"),
        ("PIE_FOO", "x", "unset it"),
        ("PIE_MAX_TOKENS", "many", "PIE_MAX_TOKENS: max-tokens is 'many'"),
        ("PIE_COMPLETION", "maybe", "true or false"),
    ],
)
def test_variables_are_refused_by_name(user_file: Path, name: str, value: str, said: str) -> None:
    result = configured(**{name: value})
    assert result.exit_code == ExitCode.INPUT
    assert said in " ".join(result.stderr.split())


@pytest.mark.parametrize("name", sorted(name for name, key in KEYS.items() if key.personal))
def test_a_project_sets_nothing_that_its_reader_must_agree_to(
    user_file: Path, tmp_path: Path, name: str
) -> None:
    value = {"flag": "true", "integer": "1"}.get(KEYS[name].kind, "'x'")
    (tmp_path / "project" / "pie.toml").write_text(f"{name} = {value}\n")
    result = configured()
    assert result.exit_code == ExitCode.INPUT
    assert f"{name} is not taken from there" in " ".join(result.stderr.split())
    (tmp_path / "project" / "pie.toml").unlink()
    user_file.write_text(f"{name} = {value}\n")
    assert configured().exit_code == 0


def test_trust_is_among_what_a_project_cannot_set() -> None:
    personal = {name for name, key in KEYS.items() if key.personal}
    assert personal >= {"trust-remote-code", "host", "port", "token"}


def test_paths_of_a_file_begin_at_its_folder(user_file: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "pie.toml").write_text("context = ['docs/api.txt']\nmodel = './model'\n")
    found = resolve(Path.cwd(), {})
    assert found["context"].value == (str(project / "docs" / "api.txt"),)
    assert found["model"].value == str(project / "model")


def test_a_project_file_without_the_table_is_passed_over(user_file: Path, tmp_path: Path) -> None:
    (tmp_path / "pie.toml").write_text("max-tokens = 9\n")
    (tmp_path / "project" / "pyproject.toml").write_text("[tool.other]\nx = 1\n")
    assert find_project_file(Path.cwd()) == tmp_path / "pie.toml"
    (tmp_path / "project" / "pyproject.toml").write_text("tool = 3\n")
    assert find_project_file(Path.cwd()) == tmp_path / "pie.toml"


def test_an_editor_may_write_camel_case_and_what_is_wrong_costs_nothing_else() -> None:
    sent = {"maxTokens": 7, "maxTokans": 7, "trustRemoteCode": True, "lines": 0, "device": None}
    found, wrong = given({**sent, "context-budget": 0}, "the editor")
    assert {name: one.value for name, one in found.items()} == {
        "max-tokens": 7,
        "context-budget": 0,
    }
    unknown, personal, low = map(str, wrong)
    assert "the editor: max-tokans is no setting" in unknown
    assert "the editor: trust-remote-code is not taken from there" in personal
    assert "the editor: lines is 0" in low


def test_a_secret_is_not_shown(user_file: Path) -> None:
    user_file.write_text("token = 'hidden'\n")
    for arguments in (["config"], ["config", "--json"]):
        result = CliRunner().invoke(app, arguments)
        assert "hidden" not in result.stdout
        assert "***" in result.stdout


def test_every_setting_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    for name, key in KEYS.items():
        assert f"| `{name}` |" in page, name
        if key.personal:
            row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
            assert "own file only" in row


def test_the_shell_completes_names_of_models(user_file: Path) -> None:
    environment = {
        "_PIE_COMPLETE": "complete_bash",
        "COMP_WORDS": "pie watch --model qwen",
        "COMP_CWORD": "3",
    }
    result = CliRunner().invoke(app, [], env=environment, prog_name="pie")
    assert "qwen2.5-coder-1.5b" in result.stdout.split()
    assert "pie-nano" not in result.stdout


@pytest.mark.parametrize(
    "content", ["a = " + "[" * 100_000, "a = " + "9" * 5_000, "a = 1979-99-99"]
)
def test_a_file_that_no_parser_takes_is_one_line(user_file: Path, content: str) -> None:
    user_file.write_text(content)
    result = configured()
    assert result.exit_code == ExitCode.INPUT
    assert "is no TOML" in result.stderr
