"""The secret scan of `make lint`: every tracked file, none of the found lines is printed.

Run it: python -m tests.secrets
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from detect_secrets.core.scan import scan_file
from detect_secrets.settings import default_settings

ROOT = Path(__file__).resolve().parent.parent

# Hashes of packages are what the locks are made of; test vectors and made-up accounts live in tests.
_EXEMPT_SUFFIXES = (".lock",)
_EXEMPT_ROOTS = ("tests",)
_ALLOWED = "pragma: allowlist secret"


def tracked_files() -> list[Path]:
    """Return what git would commit."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name]


def findings(paths: list[Path]) -> list[str]:
    """Return `file:line kind` for everything that looks like a secret."""
    found = []
    with default_settings():
        for path in paths:
            relative = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
            if path.suffix in _EXEMPT_SUFFIXES or relative.parts[0] in _EXEMPT_ROOTS or not path.is_file():
                continue
            lines = path.read_text(errors="replace").splitlines()
            for secret in scan_file(str(path)):
                if _ALLOWED not in lines[secret.line_number - 1]:
                    found.append(f"{relative}:{secret.line_number} {secret.type}")
    return found


def main() -> int:
    found = findings(tracked_files())
    for line in found:
        print(f"possible secret in {line}", file=sys.stderr)
    print(f"secret scan: {len(found)} findings")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
