"""What a connection is, and what one subscription of it: the two tables that `shared.bitget.session` lives by.

`LINKS`: a public connection needs no login, a private one does. `CHANNELS`: one subscription. An event that the table
does not list for a state is refused and changes nothing.
"""

from __future__ import annotations

import enum


class Link(enum.Enum):
    DOWN = "down"
    LOGIN = "login"  # private only: connected, login sent
    UP = "up"  # subscriptions may be sent
    REFUSED = "refused"  # the server does not want us: close, and do not come back with the same keys


class LinkEvent(enum.Enum):
    CONNECTED = "connected"
    LOGIN_ACKED = "login acked"
    LOGIN_REFUSED = "login refused"
    LOST = "lost"


LINKS: dict[tuple[Link, LinkEvent], Link] = {
    (Link.LOGIN, LinkEvent.LOGIN_ACKED): Link.UP,
    (Link.LOGIN, LinkEvent.LOGIN_REFUSED): Link.REFUSED,
    (Link.LOGIN, LinkEvent.LOST): Link.DOWN,
    (Link.UP, LinkEvent.LOST): Link.DOWN,
    (Link.REFUSED, LinkEvent.LOST): Link.DOWN,
    (Link.DOWN, LinkEvent.LOST): Link.DOWN,  # a connection that was never made is lost too
}
PUBLIC_LINKS = LINKS | {(Link.DOWN, LinkEvent.CONNECTED): Link.UP}
PRIVATE_LINKS = LINKS | {(Link.DOWN, LinkEvent.CONNECTED): Link.LOGIN}


class Channel(enum.Enum):
    WANTED = "wanted"
    ASKED = "asked"
    LINKED = "linked"
    BROKEN = "broken"  # its chain is: the server is to end it, then it is wanted again
    REFUSED = "refused"
    LEAVING = "leaving"  # linked, and not wanted any more: pushed until the server has said so
    GONE = "gone"  # no longer a channel of this connection


class ChannelEvent(enum.Enum):
    SENT = "sent"
    ACKED = "acked"
    REFUSED = "refused"
    OVERDUE = "overdue"  # no answer for ACK_NS, or refused RETRY_NS ago
    ENDED = "ended"  # the server says that the subscription is over
    LOST = "lost"
    BROKE = "broke"  # what comes does not follow what came
    DROPPED = "dropped"  # we do not want it any more


CHANNELS: dict[tuple[Channel, ChannelEvent], Channel] = {
    (Channel.WANTED, ChannelEvent.SENT): Channel.ASKED,
    (Channel.WANTED, ChannelEvent.ACKED): Channel.LINKED,  # the answer to a request that was overdue
    (Channel.WANTED, ChannelEvent.REFUSED): Channel.REFUSED,  # likewise
    (Channel.WANTED, ChannelEvent.LOST): Channel.WANTED,
    (Channel.ASKED, ChannelEvent.ACKED): Channel.LINKED,
    (Channel.ASKED, ChannelEvent.REFUSED): Channel.REFUSED,
    (Channel.ASKED, ChannelEvent.OVERDUE): Channel.WANTED,
    (Channel.ASKED, ChannelEvent.LOST): Channel.WANTED,
    (Channel.LINKED, ChannelEvent.ACKED): Channel.LINKED,  # a request that was overdue, answered twice
    (Channel.LINKED, ChannelEvent.REFUSED): Channel.LINKED,  # likewise: it runs
    (Channel.LINKED, ChannelEvent.ENDED): Channel.WANTED,
    (Channel.LINKED, ChannelEvent.LOST): Channel.WANTED,
    (Channel.REFUSED, ChannelEvent.ACKED): Channel.LINKED,
    (Channel.REFUSED, ChannelEvent.OVERDUE): Channel.WANTED,
    (Channel.REFUSED, ChannelEvent.LOST): Channel.WANTED,
    (Channel.WANTED, ChannelEvent.BROKE): Channel.BROKEN,
    (Channel.ASKED, ChannelEvent.BROKE): Channel.BROKEN,
    (Channel.LINKED, ChannelEvent.BROKE): Channel.BROKEN,
    (Channel.BROKEN, ChannelEvent.ACKED): Channel.BROKEN,  # the answer to a request from before the break
    (Channel.BROKEN, ChannelEvent.ENDED): Channel.WANTED,
    (Channel.BROKEN, ChannelEvent.REFUSED): Channel.WANTED,  # the server does not know it: it has ended
    (Channel.BROKEN, ChannelEvent.OVERDUE): Channel.WANTED,
    (Channel.BROKEN, ChannelEvent.LOST): Channel.WANTED,
    (Channel.BROKEN, ChannelEvent.DROPPED): Channel.LEAVING,  # the server may still push
    (Channel.WANTED, ChannelEvent.DROPPED): Channel.GONE,
    (Channel.ASKED, ChannelEvent.DROPPED): Channel.GONE,
    (Channel.REFUSED, ChannelEvent.DROPPED): Channel.GONE,
    (Channel.LINKED, ChannelEvent.DROPPED): Channel.LEAVING,
    (Channel.LEAVING, ChannelEvent.ACKED): Channel.LEAVING,  # a request that was overdue, answered twice
    (Channel.LEAVING, ChannelEvent.REFUSED): Channel.GONE,  # the server does not know it any more either
    (Channel.LEAVING, ChannelEvent.OVERDUE): Channel.GONE,
    (Channel.LEAVING, ChannelEvent.ENDED): Channel.GONE,
    (Channel.LEAVING, ChannelEvent.LOST): Channel.GONE,
}
UP = frozenset({Channel.LINKED, Channel.LEAVING})
"""States in which silence of a channel means that nothing happened."""
