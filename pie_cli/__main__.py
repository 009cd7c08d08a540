"""`python -m pie_cli`: the same as the `pie` command."""

from pie_cli.cli.app import main

if __name__ == "__main__":
    main()
