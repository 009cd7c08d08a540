"""Load folders in a process that records whatever is fetched, run or imported meanwhile.

Called with a folder of models; for each it prints a line of JSON: its name, what came of it, and
what was recorded. With `--bare` and names, transformers loads these, as the control.
"""

import json
import os
import sys
from pathlib import Path

RECORDED: list[str] = []
_WATCHED = (
    "socket.connect",
    "socket.getaddrinfo",
    "socket.sendto",
    "subprocess.Popen",
    "os.system",
)


class Refused(OSError):
    """A network call that was not let through."""


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if event in _WATCHED:
        RECORDED.append(event)
        raise Refused(event)
    if event == "import" and str(arguments[0]).startswith(("transformers_modules", "evil")):
        RECORDED.append(f"import {arguments[0]}")
    if event == "exec" and "evil" in str(getattr(arguments[0], "co_filename", "")):
        RECORDED.append("exec")


def main() -> None:
    folder, bare, names = Path(sys.argv[1]), "--bare" in sys.argv, sys.argv[3:]
    import torch
    import transformers

    from pie_cli.errors import PieError
    from pie_cli.models.loading import load

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    # The stand-in for the package of kernels says there what it was asked for.
    log = Path(os.environ["KERNEL_LOG"])
    sys.addaudithook(_audit)
    for model in (
        folder / name for name in names or sorted(path.name for path in folder.iterdir())
    ):
        RECORDED.clear()
        log.write_text("")
        try:
            if bare:
                transformers.AutoTokenizer.from_pretrained(model)
                transformers.AutoModelForCausalLM.from_pretrained(
                    model, attn_implementation="sdpa", use_safetensors=True
                )
            else:
                loaded = load(str(model), "cpu")
                loaded.model(torch.arange(1, 5)[None])
            outcome = "loaded"
        except PieError as error:
            outcome = str(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is shown
            outcome = f"!{type(error).__name__}: {error}"
        seen = [*RECORDED, *log.read_text().split()]
        line = json.dumps({"model": model.name, "outcome": outcome, "seen": seen})
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
