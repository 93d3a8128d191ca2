"""Where the time goes before a training is under way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["StartupClock"]


class StartupClock:
    """Seconds of each part of a start, in order.

    The first part, `导入`, is what has passed since the process began when the clock is made.

    Attributes:
        parts: Seconds by part; a part that is measured again counts once, its latest time.
    """

    def __init__(self) -> None:
        import psutil

        self.parts: dict[str, float] = {"导入": time.time() - psutil.Process().create_time()}

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """What is done inside counts as this part, less what is measured inside it."""
        begun, before = time.perf_counter(), sum(self.parts.values())
        yield
        inside = sum(self.parts.values()) - before
        self.parts[part] = time.perf_counter() - begun - inside

    def render(self) -> str:
        """One line.

        Example:
            >>> clock = StartupClock()
            >>> clock.parts = {"导入": 4.25, "加载与量化": 21.0}
            >>> clock.render()
            '启动 25.2 秒: 导入 4.2, 加载与量化 21.0'
        """
        shown = ", ".join(f"{part} {seconds:.1f}" for part, seconds in self.parts.items())
        return f"启动 {sum(self.parts.values()):.1f} 秒: {shown}"
