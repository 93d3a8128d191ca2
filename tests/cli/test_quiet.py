from __future__ import annotations

import logging
import warnings
from threading import RLock

import pytest
import transformers
from tqdm import tqdm

from tripletune.cli.quiet import quiet_libraries


@pytest.fixture(autouse=True)
def _restore():
    """Gives the libraries their voices back."""
    bitsandbytes = logging.getLogger("bitsandbytes")
    level, verbosity = bitsandbytes.level, transformers.logging.get_verbosity()
    shows_bars = transformers.logging.is_progress_bar_enabled()
    lock = tqdm.get_lock()
    yield
    tqdm.set_lock(lock)
    bitsandbytes.setLevel(level)
    transformers.logging.set_verbosity(verbosity)
    if shows_bars:
        transformers.logging.enable_progress_bar()


def test_quiet_libraries_leaves_errors_of_other_libraries():
    quiet_libraries()
    assert not logging.getLogger("bitsandbytes").isEnabledFor(logging.WARNING)
    assert logging.getLogger("bitsandbytes").isEnabledFor(logging.ERROR)
    assert transformers.logging.get_verbosity() == logging.ERROR
    assert not transformers.logging.is_progress_bar_enabled()


def test_quiet_libraries_hides_only_renamed_names_of_transformers():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quiet_libraries()
        for module in ("transformers.modeling_utils", "tripletune.config"):
            warnings.warn_explicit("renamed", FutureWarning, "x.py", 1, module=module, registry={})
        warnings.warn_explicit("x", UserWarning, "x.py", 1, "transformers.trainer", registry={})
    assert [item.category for item in caught] == [FutureWarning, UserWarning]


def test_bars_of_libraries_share_no_lock_between_processes():
    """One that a process which is ended has made is told of as leaked."""
    quiet_libraries()
    assert type(tqdm.get_lock()) is type(RLock())
