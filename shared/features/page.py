"""The catalog as a page: `python -m shared.features.page > docs/features.md`."""

from __future__ import annotations

import sys

from shared.features.catalog import CATALOG, LOOKBACK_S, SAME, SECTIONS, SIGN

HEAD = """\
# Features

Made by `python -m shared.features.page > docs/features.md` from `shared/features/catalog.py`; a test keeps it in step.

{n} features of every symbol and second, from the last {lookback} seconds. Row `second = s` is what was received before
s + 1. No feature knows a raw price or size. A window's missing second leaves the feature missing (NaN), and a row with
a missing feature has no score. *Mirror* says what happens when bids are asks, buyers are sellers and up is down: the
value changes its sign (±), changes places with another feature (its name), or stays (blank). "Symbols" are all that are
recorded, whatever part of them is traded.
"""


def page() -> str:
    """Return the catalog in Markdown."""
    parts = [HEAD.format(n=len(CATALOG), lookback=LOOKBACK_S)]
    for title, section in SECTIONS.items():
        parts.append(f"\n## {title}\n\n| Feature | Unit | What it says | Mirror | Source |\n|---|---|---|---|---|\n")
        for name, feature in section.items():
            mirror = {SAME: "", SIGN: "±"}.get(feature.mirror, f"`{feature.mirror}`")
            says = feature.says.replace("|", "\\|")
            parts.append(f"| `{name}` | {feature.unit} | {says} | {mirror} | {feature.source} |\n")
    return "".join(parts)


if __name__ == "__main__":
    sys.stdout.write(page())
