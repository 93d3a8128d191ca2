from __future__ import annotations

import pytest

from tripletune.training import startup
from tripletune.training.startup import StartupClock


def test_parts_follow_one_another_and_leave_out_what_is_inside(monkeypatch):
    clock = StartupClock()
    clock.parts = {"导入": 1.0}
    times = iter([10.0, 12.0, 15.0, 20.0])
    monkeypatch.setattr(startup.time, "perf_counter", lambda: next(times))
    with clock.measure("outer"), clock.measure("inner"):
        pass
    assert clock.parts == {"导入": 1.0, "inner": 3.0, "outer": 7.0}
    assert clock.render() == "启动 11.0 秒: 导入 1.0, inner 3.0, outer 7.0"


def test_import_is_the_time_since_the_process_began():
    first, second = StartupClock().parts["导入"], StartupClock().parts["导入"]
    assert 0 < first <= second == pytest.approx(first, abs=5)
