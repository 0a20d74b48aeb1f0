"""Clusters: which symbols move together, by what the exchange says they are.

    majors   BTC and ETH: they lead, are deep, and move as one (correlation 0.84 at 10 s)
    alts     every other coin
    rwa      perpetuals on stocks, metals and the like (the listing's `isRwa`): another market, other hours

A cluster is where a *net* position is one bet, so that is what is limited and what a new symbol's score is shrunk to.

Why no clusters from estimated correlations: over seconds one common factor is 46 to 65 % of what perpetuals do, the
rest is noise of the estimate (600 symbols against a window of 300 returns), a new listing has no returns at all, and a
cluster that changes while a position is open moves a limit under it. What matters on the day that counts is that
every alt falls with every other, which is what one cluster of them says. And the exchange's flags are the same live,
in a backtest and in a replay, with nothing to remember.
"""

from __future__ import annotations

import enum

from shared.types import Contract, Universe

MAJORS = frozenset({"BTC", "ETH"})


class Cluster(enum.StrEnum):
    MAJORS = "majors"
    ALTS = "alts"
    RWA = "rwa"


def cluster_of(contract: Contract) -> Cluster:
    """Return what a contract moves with."""
    if contract.is_rwa:
        return Cluster.RWA
    return Cluster.MAJORS if contract.base in MAJORS else Cluster.ALTS


def clusters_of(universe: Universe) -> tuple[Cluster, ...]:
    """Return the cluster of every symbol, (N,)."""
    return tuple(cluster_of(contract) for contract in universe.contracts)
