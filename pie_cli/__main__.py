"""`pie`, and `python -m pie_cli`: the quick way where there is one, else the commands proper."""

import sys

import pie_cli.timing  # noqa: F401 (its clock starts before anything else is imported)


def main() -> None:
    """Run the command line; the entry point of `pie`."""
    if sys.argv[1:2] == ["complete"]:
        from pie_cli.cli.quick import completes

        if completes(sys.argv[1:]):
            return
    from pie_cli.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
