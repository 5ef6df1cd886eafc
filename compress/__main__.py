"""The command `slimzoo`, and `python -m compress`."""

from zoo.console import run


def main() -> None:
    from compress.cli import app

    run(app, "slimzoo")


if __name__ == "__main__":
    main()
