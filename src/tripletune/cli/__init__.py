"""The `tripletune` command: the only part of the package that prints or exits."""
