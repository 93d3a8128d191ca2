"""`python -m tripletune`, the same as the command `tripletune`."""

from tripletune.cli.main import run

if __name__ == "__main__":
    run()
