"""How the simulator misbehaves, changed while it runs through `POST /_control/conditions`.

Counters count down as they strike; flags stay until they are taken back. To extend: add a field, and the place that
looks at it.
"""

from __future__ import annotations

import msgspec


class Strike(msgspec.Struct, forbid_unknown_fields=True):
    """An answer that the next request to a path gets instead of its own."""

    path: str  # the end of the path, e.g. "order/place-order"
    code: str
    msg: str
    status: int = 400


class Conditions(msgspec.Struct, forbid_unknown_fields=True):
    """Everything polite by default."""

    timeout_next_place: int = 0  # so many placements are accepted and never answered
    lose_next_place: int = 0  # so many placements are neither accepted nor answered
    latency_ms: float = 0.0  # before every private REST request is looked at
    match_ms: float = 5.0  # between the ack and the matching of an order
    refuse_next: list[Strike] = []
    is_frozen: bool = False  # public pushes stop, sockets stay up
    is_private_mute: bool = False  # private pushes are lost
    stop_never_triggers: bool = False
    bill_delay_ms: float = 0.0  # between a movement of the wallet and the bill that tells of it


class Change(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What a person or a test wants changed; what is absent stays as it is."""

    timeout_next_place: int | bool | None = None
    lose_next_place: int | bool | None = None
    latency_ms: float | None = None
    match_ms: float | None = None
    refuse_next: list[Strike] | None = None
    is_frozen: bool | None = None
    is_private_mute: bool | None = None
    stop_never_triggers: bool | None = None
    bill_delay_ms: float | None = None
    drop_sockets: bool | str | None = None  # at once: true or "all", "public", "private"

    def apply(self, conditions: Conditions) -> None:
        """Change `conditions` in place; true counts as 1."""
        for name in conditions.__struct_fields__:
            value = getattr(self, name)
            if value is not None:
                setattr(conditions, name, int(value) if name.endswith("_next_place") else value)
