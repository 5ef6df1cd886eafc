"""`python -m zoo`: the commands of this package alone."""

from zoo.cli import app
from zoo.console import run

if __name__ == "__main__":
    run(app, "zoo")
