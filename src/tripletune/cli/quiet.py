"""Keeps other libraries' remarks out of a command's output."""

from __future__ import annotations

import logging
import warnings
from threading import RLock

__all__ = ["quiet_libraries"]


def quiet_libraries() -> None:
    """Leaves of other libraries only what a user can do something about.

    Errors and exceptions stay; what goes is the advice, the progress bars of loading and the
    warnings about names that one library renamed and another still uses.
    """
    import transformers
    from tqdm import tqdm

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    # Its own lock, between processes, is told of as leaked when a worker is ended (Ctrl-C).
    tqdm.set_lock(RLock())
    # Said by bitsandbytes on every CPU.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\..*")
