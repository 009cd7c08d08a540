"""What is not pie's own reaches a terminal spelled out: escapes, markup, what shows nothing."""

import json
import logging
import os
import pty
import re
import shutil
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from pie_cli.cli.app import app
from pie_cli.cli.logs import _Formatter
from pie_cli.cli.render import Renderer
from pie_cli.cli.reports import TextReport
from pie_cli.cli.visible import LONGEST, shortened, visible, visible_lines
from pie_cli.config import Settings
from tests.cli.helpers import watched
from tests.conftest import SOURCE
from tests.diffs import unified_diff

CLIPBOARD = "\x1b]52;c;ZXZpbA==\x07"
LINK = "\x1b]8;;http://evil.example\x1b\\x\x1b]8;;\x1b\\"
MARKUP = "[/x][link=http://evil.example]:smile:[red]"
UNSEEN = "\u200b\u200c\u200d\u2060\ufeff\xad\u180e\u2061\ufe0f\U000e0041\U000e0001\u3164\u034f"
TURNED = "\u202e\u2066\x9b2J\x07\x08\r\n"
EVIL = CLIPBOARD + LINK + MARKUP + UNSEEN + TURNED
NAMED = EVIL.replace("/", "\u2215").encode()[:240].decode(errors="ignore")
"""The same as a file may be called."""

# What Unicode lists as Default_Ignorable_Code_Point besides format characters.
IGNORABLE = {0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0, 0x2065}
IGNORABLE |= {*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0000, 0xE1000)}
# Format characters that are seen: they go before or around the digits of a number.
SEEN = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
SEEN |= {*range(0x13430, 0x13440)}


def is_hidden(character: str) -> bool:
    code = ord(character)
    hidden = unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
    return character != "\t" and (code in IGNORABLE or (hidden and code not in SEEN))


def test_every_code_point_that_is_hidden_is_spelled():
    wrong = [
        hex(code)
        for code in range(0x110000)
        if is_hidden(chr(code)) and visible(chr(code)) == chr(code)
    ]
    assert wrong == []


texts = st.text(st.characters() | st.sampled_from(EVIL), max_size=80)


@given(texts)
def test_nothing_hidden_remains(text: str):
    shown = visible(text)
    assert not any(map(is_hidden, shown))
    assert visible(shown) == shown


@given(st.text(st.characters(exclude_categories=["C", "Z"]), max_size=80))
def test_what_can_be_seen_stays(text: str):
    expected = "".join(c for c in text if not is_hidden(c))
    assert visible(expected) == expected


@given(texts)
def test_a_spelled_character_can_be_told(text: str):
    """Each one is read back from its spelling, where no backslash was there before."""
    text = text.replace("\\", "")
    read = re.sub(
        r"\\(?:x(..)|u(....)|U(.{8})|n)",
        lambda m: chr(int(m[1] or m[2] or m[3], 16)) if m[0] != "\\n" else "\n",
        visible(text),
    )
    assert read == text


@given(st.integers(0, 5_000), st.integers(8, 3_000))
def test_a_long_text_keeps_its_ends(length: int, longest: int):
    text = "".join(chr(0x4E00 + i % 1_000) for i in range(length))
    short = shortened(text, longest)
    assert len(short) <= longest + 32
    assert (short == text) == (length <= longest)
    assert short[: longest // 4] == text[: longest // 4]
    assert short[-(longest // 4) :] == text[-(longest // 4) :]


def test_lines_of_ours_stay_lines():
    assert visible_lines("a\n\x1b\n") == "a\n\\x1b\n"


def test_a_log_s_message_is_one_line():
    record = logging.LogRecord("pie_cli", logging.INFO, "", 0, "saved %s", (EVIL,), None)
    assert not any(map(is_hidden, _Formatter("%(message)s").format(record)))


# --- every command and message, on a terminal -----------------------------------------------------


class Terminal:
    """A pseudo-terminal that takes stdout and stderr, and keeps what arrives."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._master, slave = pty.openpty()
        patch.setenv("TERM", "xterm-256color")
        patch.setenv("COLUMNS", "200")
        self._stream = os.fdopen(slave, "w", encoding="utf-8")
        self._patch = patch
        self._parts: list[bytes] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while True:
            try:
                part = os.read(self._master, 1 << 16)
            except OSError:
                return
            if not part:
                return
            self._parts.append(part)

    def text(self) -> str:
        """Close the terminal; return what it was sent."""
        self._stream.close()
        self._thread.join()
        os.close(self._master)
        return b"".join(self._parts).decode()

    def take(self) -> None:
        """Take what is printed from now on; pytest has its own ideas between a test's phases."""
        self._patch.setattr(sys, "stdout", self._stream)
        self._patch.setattr(sys, "stderr", self._stream)

    def run(self, arguments: Sequence[str]) -> int:
        self.take()
        with pytest.raises(SystemExit) as ended:
            app([*arguments])
        return int(ended.value.code or 0)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    return Terminal(monkeypatch)


# What rich itself sends: colours, the cursor hidden and shown, a progress bar drawn again.
OURS = re.compile(r"\x1b\[[\d;]*m|\x1b\[\?25[lh]|\x1b\[\d*A|\x1b\[2K|\r")


def assert_harmless(sent: str) -> None:
    assert sent
    rest = OURS.sub("", sent)
    assert sorted({hex(ord(c)) for c in rest if is_hidden(c) and c != "\n"}) == []


@pytest.fixture
def evil_model(tiny_checkpoint: Path, tmp_path: Path) -> str:
    return str(shutil.copytree(tiny_checkpoint, tmp_path / NAMED))


@pytest.fixture
def evil_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / f"d{NAMED}"
    folder.mkdir()
    monkeypatch.chdir(folder)
    path = Path(f"{NAMED}.py")
    path.write_text(SOURCE.replace("width", f"w{EVIL}"), encoding="utf-8")
    return path


def test_the_control_finds_what_is_sent_raw():
    for bad in (CLIPBOARD, LINK, "\u200b", "\x1b[2J"):
        with pytest.raises(AssertionError):
            assert_harmless(f"\x1b[1mpie{bad}")


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_complete(terminal: Terminal, evil_model: str, evil_file: Path, debug: list[str]):
    common = ["--model", evil_model, "--device", "cpu", "--max-tokens", "4", *debug]
    before = evil_file.read_text(encoding="utf-8")
    Path("patch").write_text(
        unified_diff(before, before.replace("size", "area", 1), evil_file.name), encoding="utf-8"
    )
    assert terminal.run(["complete", str(evil_file), *common]) == 0
    terminal.run(["complete", str(evil_file), "--edit", "patch", *common])
    terminal.run(["complete", "--edit", "patch", *common])
    terminal.run(["complete", str(evil_file), "--context", str(evil_file) + "x", *common])
    terminal.run(["complete", EVIL, "--at", EVIL, *common])
    terminal.run(["complete", str(evil_file), "--edit", EVIL, *common])
    sent = terminal.text()
    assert_harmless(sent)
    assert "\\u200b" in sent
    assert "[/x]" in sent


def test_models_and_machines(terminal: Terminal, evil_model: str):
    assert terminal.run(["doctor", "--model", evil_model, "--device", "cpu"]) == 0
    terminal.run(["models", "pull", EVIL])
    terminal.run(["models", "--device", EVIL])
    for name in (EVIL, f"./{NAMED}", f"{evil_model}/config.json", f"~{NAMED}/x"):
        assert terminal.run(["doctor", "--model", name]) != 0
    assert_harmless(terminal.text())


def test_measuring(terminal: Terminal, evil_model: str, tmp_path: Path):
    common = ["--model", evil_model, "--device", "cpu", "--max-tokens", "2"]
    sizes = ["--context-tokens", "64", "--edit-tokens", "1", "--edits", "insert", "--repeats", "1"]
    assert terminal.run(["bench", *sizes, *common]) == 0
    terminal.run(["bench", "--plot", f"{tmp_path}/{NAMED}/x.png", *common])
    terminal.run(["bench", "--strategies", EVIL, *common])
    terminal.run(["eval", "--task", EVIL, *common])
    terminal.run(["eval", "--cases", EVIL, *common])
    terminal.run(["eval", "--cases", str(tmp_path), "--out", EVIL, *common])
    assert_harmless(terminal.text())


def test_cases_and_branches(terminal: Terminal, evil_model: str, tmp_path: Path):
    repository = tmp_path / f"r{NAMED}"
    repository.mkdir()
    records = tmp_path / f"c{NAMED}.jsonl"
    records.write_text(json.dumps({"id": EVIL, "evil": EVIL}) + "\nnonsense\n")
    if shutil.which("git"):
        for number in range(3):
            (repository / f"{NAMED}.py").write_text(SOURCE + f"x = {number}\n")
            for arguments in (
                ["init", "-q", "-b", "m\u200b\xad\u2060"],
                ["add", "."],
                ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", EVIL],
            ):
                subprocess.run(["git", *arguments], cwd=repository, check=True)
    common = ["--model", evil_model, "--device", "cpu", "--max-tokens", "2", "--limit", "1"]
    for cases in (repository, records):
        for task in ("real", "insertion"):
            terminal.run(["eval", "--cases", str(cases), "--task", task, *common])
    assert_harmless(terminal.text())


def test_what_typing_gets_in_return(terminal: Terminal):
    for arguments in (
        [EVIL],
        [f"--{EVIL}"],
        ["complete", f"--{EVIL}"],
        ["complete", "a", EVIL],
        ["complete", "a", "--max-tokens", EVIL],
        ["watch", "--cache-memory", EVIL, "."],
        ["watch", EVIL],
        ["models", EVIL],
        ["models", "pull", "a", EVIL],
        ["config", EVIL],
        ["--log-file", f"/{EVIL}/x", "models"],
        ["complete", "a", "--strategy", EVIL],
        ["complete", "a", "--compare", EVIL],
        ["complete", "a", "--dtype", EVIL],
        ["complete", "a", "--device", EVIL],
    ):
        assert terminal.run(arguments) != 0
    assert_harmless(terminal.text())


@pytest.mark.parametrize(
    "entry", ["model_type", "hidden_act", "rope_type", "quant_method", "tensor"]
)
def test_causes_that_quote_a_model_s_files(terminal: Terminal, evil_model: str, entry: str):
    folder = Path(evil_model)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": {"model_type": EVIL},
        "hidden_act": {"hidden_act": EVIL},
        "rope_type": {"rope_parameters": {"rope_type": EVIL}},
        "quant_method": {"quantization_config": {"quant_method": EVIL}},
        "tensor": {},
    }[entry]
    (folder / "config.json").write_text(json.dumps(config))
    if entry == "tensor":
        weights = load_file(folder / "model.safetensors")
        weights[EVIL] = weights.pop("model.norm.weight")
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    Path(folder / "a.py").write_text("x = 1\n")
    assert terminal.run(["complete", str(folder / "a.py"), "--model", evil_model, "--debug"]) != 0
    sent = terminal.text()
    assert_harmless(sent)
    assert "\\x1b" in sent


def test_a_watch(terminal: Terminal, evil_model: str, evil_file: Path):
    stop = threading.Event()
    shown = [0]

    class Report(TextReport):
        def tell(self, event: object) -> None:
            super().tell(event)  # type: ignore[arg-type]
            shown[0] += 1
            if shown[0] == 1:
                evil_file.write_text(SOURCE.replace("size", EVIL), encoding="utf-8")
            else:
                stop.set()

    settings = Settings(evil_model, "cpu", max_tokens=4)
    terminal.take()
    watched([evil_file], settings, Report(Renderer()), stop)
    assert_harmless(terminal.text())


# --- long lines -----------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["end", "2:1000001", "1"])
def test_a_line_of_two_megabytes_is_not_printed_whole(
    tiny_checkpoint: Path, tmp_path: Path, at: str, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "long.py"
    path.write_text("x = 1\n" + "y" * 2_000_000 + "\nz = 3\n")
    common = ["--model", str(tiny_checkpoint), "--device", "cpu", "--context-tokens", "512"]
    with pytest.raises(SystemExit):
        app(["complete", str(path), "--at", at, "--max-tokens", "4", *common])
    out, err = capsys.readouterr()
    assert len(out) + len(err) < 8_000
    assert "characters" in out + err or "…" in out + err or "does not fit" in err


def test_a_message_of_a_megabyte_is_cut(capsys: pytest.CaptureFixture[str]):
    Renderer().error("x" * 1_000_000, "y" * 1_000_000)
    assert len(capsys.readouterr().err) < 2 * LONGEST + 200
