"""`pie demo`: a scripted editor at work on a real file, and `pie watch` beside it."""

import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory

from pie_cli.cli.demo_script import EDITS, FILE_NAME, texts
from pie_cli.cli.documents import Beginning
from pie_cli.cli.interrupts import Interrupts
from pie_cli.cli.render import Renderer
from pie_cli.cli.reports import TextReport
from pie_cli.cli.tally import Summary
from pie_cli.cli.watch import WatchOptions, watch_paths
from pie_cli.cli.words import what_changed
from pie_cli.config import Settings
from pie_cli.models.choice import EMBEDDED
from pie_cli.workspace.events import Compared, Event, Failed, NotCompared, Predicted

_LONGEST_S = 50.0
"""After which no new edit is saved and what runs is given up."""

_PAUSE_S = 1.0
"""Between two edits, for eyes: a program that reads the output need not wait."""

_JOIN_S = 5.0


def run(settings: Settings) -> None:
    """Show what `pie watch` does, on a temporary file that is gone afterwards.

    Raises:
        PieError: when the model cannot be used, or files cannot be watched here.
        BrokenPipeError: when nobody reads the output any more.
    """
    renderer = Renderer()
    stop = threading.Event()
    # Signals are taken over first and given back last: the file goes in any case.
    with (
        Interrupts(ends_process=True) as interrupts,
        TemporaryDirectory(prefix="pie-demo-") as folder,
    ):
        path = Path(folder) / FILE_NAME
        states = texts()
        path.write_text(states[0], encoding="utf-8")
        editor = Editor(path, states[1:], stop, _PAUSE_S if sys.stdout.isatty() else 0.0)
        report = DemoReport(renderer, editor)
        try:
            watch_paths(
                [path],
                settings,
                WatchOptions(compare_pause_ms=0),
                report,
                renderer,
                interrupts,
                stop,
                show=lambda _: FILE_NAME,
            )
        finally:
            editor.close()


class Editor:
    """Saves one text after the other, each when it is told that the last one's answer was shown.

    Args:
        path: the file.
        states: its texts, the first one not among them.
        stop: ends the watch: set behind the last text, or when time is up.
        pause_s: waited before each save.

    Attributes:
        ran_out: whether time was up before the last text.
    """

    def __init__(
        self, path: Path, states: Sequence[str], stop: threading.Event, pause_s: float
    ) -> None:
        self._path = path
        self._states = states
        self._stop = stop
        self._pause_s = pause_s
        self._turns: SimpleQueue[None] = SimpleQueue()
        self._thread = threading.Thread(target=self._edit, name="pie-demo-editor", daemon=True)
        self._timer = threading.Timer(_LONGEST_S, self._run_out)
        self._timer.daemon = True
        self.ran_out = False

    def start(self) -> None:
        """Begin to edit, and to count the time."""
        self._thread.start()
        self._timer.start()

    def turn(self) -> None:
        """Tell that the last text's answer was shown."""
        self._turns.put(None)

    def close(self) -> None:
        """End the watch, and wait for the threads, if they were started."""
        self._timer.cancel()
        self._end()
        for thread in (self._thread, self._timer):
            if thread.is_alive():
                thread.join(_JOIN_S)

    def _run_out(self) -> None:
        self.ran_out = True
        self._end()

    def _end(self) -> None:
        self._stop.set()
        self._turns.put(None)

    def _edit(self) -> None:
        for state in self._states:
            self._turns.get()
            if self._stop.wait(self._pause_s):
                return
            # Write and rename, as many editors do: nobody sees half a file.
            draft = self._path.with_suffix(".tmp")
            draft.write_text(state, encoding="utf-8")
            draft.replace(self._path)
        self._turns.get()
        self._stop.set()


class DemoReport(TextReport):
    """Tells what each edit is, and gives the editor its turns.

    Args:
        renderer: shows it all.
        editor: started with the watch.
    """

    def __init__(self, renderer: Renderer, editor: Editor) -> None:
        super().__init__(renderer, lambda _: FILE_NAME)
        self._editor = editor
        self._shown = 0

    def started(self, beginning: Beginning) -> None:
        """Let the editor begin."""
        super().started(beginning)
        self._editor.start()

    def tell(self, event: Event) -> None:
        """Name the edit above its prediction, and hand over to the editor when it is answered."""
        if not isinstance(event, Predicted):
            super().tell(event)
        else:
            self._renderer.rule(event.path, what_changed(event.prediction))
            self._renderer.title(_title(event.number))
            self._show_answer(event)
        first = isinstance(event, Predicted) and event.number == 0
        self._shown += isinstance(event, Compared | NotCompared)
        # The first text has no comparison to wait for.
        if first or isinstance(event, Compared | NotCompared | Failed):
            self._editor.turn()

    def stopped(self, summary: Summary) -> None:
        """Say what is missing, and what to do next."""
        super().stopped(summary)
        if self._shown < len(EDITS):
            self._renderer.prose(f"Ended before all of the {len(EDITS)} edits were compared.")
        if self._editor.ran_out:
            self._renderer.prose(
                f"Time ran out, {_LONGEST_S:.0f} s: `pie demo --model {EMBEDDED}` takes less."
            )
        self._renderer.line("On a file of yours: pie watch FILE")


def _title(save_id: int) -> str:
    if save_id == 0:
        return "The file as it is: everything is encoded once"
    if save_id > len(EDITS):
        return "Somebody else's edit"
    return f"Edit {save_id} of {len(EDITS)}: {EDITS[save_id - 1].what}"
