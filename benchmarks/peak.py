"""How much memory a piece of work takes at most, its own apart from the pages of files that it maps."""

from __future__ import annotations

import threading
from pathlib import Path


class Peak(threading.Thread):
    """The largest memory of this process while it runs, MiB: what it owns, and with the pages of mapped files, which
    are the kernel's to drop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.own_mib = self.mapped_mib = 0.0
        self._is_over = threading.Event()

    def run(self) -> None:
        while True:
            lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            anonymous, files = (int(lines[name].split()[0]) / 1024 for name in ("RssAnon", "RssFile"))
            self.own_mib, self.mapped_mib = max(self.own_mib, anonymous), max(self.mapped_mib, anonymous + files)
            if self._is_over.wait(0.1):
                return

    def __enter__(self) -> Peak:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self.join()
