"""`python -m transfer`: the commands of this package alone."""

from transfer.cli import app
from zoo.console import run

if __name__ == "__main__":
    run(app, "transfer")
