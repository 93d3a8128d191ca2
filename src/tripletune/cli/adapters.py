"""Finding the adapter that a command without `--adapter` means."""

from __future__ import annotations

from pathlib import Path

from tripletune.errors import AdapterError

__all__ = ["find_adapter"]


def find_adapter(given: str | None, *, root: Path = Path("output")) -> Path:
    """The given adapter folder, or the one written last under `output/`.

    Raises:
        AdapterError: the folder holds no adapter, or there is none at all.
    """
    if given is not None:
        folder = Path(given)
        if not (folder / "adapter_config.json").is_file():
            raise AdapterError(
                f"adapter: {given!r} holds no adapter_config.json; give the output folder of a "
                "training (--adapter output/chatglm-6b-triplet-qlora)"
            )
        return folder
    found = sorted(
        root.glob("*/adapter_config.json"), key=lambda path: path.stat().st_mtime, reverse=True
    )
    if not found:
        raise AdapterError(
            f"adapter: no training output under {str(root)!r}; train first (python "
            "train_pure_python.py) or give a folder (--adapter DIR)"
        )
    return found[0].parent
