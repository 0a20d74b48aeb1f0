"""hftbacktest as an oracle: events and requests from .npz files, what became of them into others.

Runs by itself under `.venv-oracles` (hftbacktest needs an older numpy than ours) and imports nothing of this project:
    .venv-oracles/bin/python tests/oracles/hft.py IN.npz OUT.npz [IN.npz OUT.npz ...]

IN   ev, exch_ts, px, qty: market events (hftbacktest's flags); t, kind, id, side, price, size, tif: requests in order of
     time, kind 0 to submit and 1 to cancel, tif 0 rests, 1 post-only, 3 IOC, 9 market; settings: JSON
OUT  id, status, filled, price, last, exch_ts, recv_ts: a row for every response that changed an order; state: position,
     balance and fee; cpu_s of the run

Just-in-time compiling is off: it takes ten seconds, and all the work is done in hftbacktest's Rust core either way.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from typing import Any

os.environ["NUMBA_DISABLE_JIT"] = "1"

import hftbacktest as hft
import numpy as np
from hftbacktest import binding
from hftbacktest.order import PARTIALLY_FILLED
from hftbacktest.types import event_dtype, state_values_dtype

MARKET = 9
TIME_IS_UP, END_OF_DATA, MARKET_FEED, ORDER_RESPONSE = range(4)


def events(given: Any) -> Any:
    rows = np.zeros(len(given["ev"]), event_dtype)
    rows["ev"] = given["ev"]
    rows["exch_ts"] = rows["local_ts"] = given["exch_ts"]
    rows["px"], rows["qty"] = given["px"], given["qty"]
    return rows


def asset(rows: Any, settings: dict[str, Any]) -> Any:
    made = (
        hft.BacktestAsset()
        .data(rows)
        .linear_asset(1.0)
        .constant_order_latency(settings["entry_ns"], settings["response_ns"])
        .partial_fill_exchange()
        .trading_value_fee_model(settings["maker_fee"], settings["taker_fee"])
        .tick_size(settings["tick"])
        .lot_size(settings["step"])
    )
    if settings["queue"] == "risk_averse":
        return made.risk_adverse_queue_model()
    if settings["queue"] == "log":
        return made.log_prob_queue_model()
    return made.power_prob_queue_model(settings["power"])


class Run:
    def __init__(self, rows: Any, settings: dict[str, Any]) -> None:
        self.core = hft.HashMapMarketDepthBacktest([asset(rows, settings)])
        self.looks = settings["looks_at_responses"]  # at every one; else whenever time has passed
        self.core.elapse(0)  # from now on its clock is that of the first event
        self.active: dict[int, tuple[int, float]] = {}  # id -> (status, leaves) as last seen
        self.told: list[tuple[float, ...]] = []  # id, status, filled, price, last
        self.times: list[tuple[int, int]] = []  # exchange's and ours, of the same

    def order(self, oid: int) -> Any:
        """Return the order's struct; the wrapper's own getter needs the compiler."""
        address = binding.orders_get(binding.hashmapbt_orders(self.core.ptr, 0), oid)
        if not address:
            return None
        raw = (ctypes.c_char * binding.order_dtype.itemsize).from_address(address)
        return np.frombuffer(raw, binding.order_dtype)[0]

    def state(self) -> Any:
        address = binding.hashmapbt_state_values(self.core.ptr, 0)
        raw = (ctypes.c_char * state_values_dtype.itemsize).from_address(address)
        return np.frombuffer(raw, state_values_dtype)[0].copy()

    def until(self, at_ns: int) -> None:
        """Let time pass, and look at the orders after every response."""
        while self.looks and self.active and self.core.current_timestamp < at_ns:
            answer = self.core.wait_next_feed(True, at_ns - self.core.current_timestamp)
            if answer == ORDER_RESPONSE:
                self.look()
            elif answer == END_OF_DATA:
                return
            else:
                assert answer in (TIME_IS_UP, MARKET_FEED), f"hftbacktest failed with {answer}"
        if self.core.current_timestamp < at_ns:
            self.core.elapse(at_ns - self.core.current_timestamp)
            if not self.looks:
                self.look()

    def look(self) -> None:
        for oid in list(self.active):
            found = self.order(oid)
            seen = (int(found["status"]), float(found["leaves_qty"]))
            if seen == self.active[oid]:
                continue
            filled = self.active[oid][1] - seen[1]
            self.active[oid] = seen
            price = float(found["exec_price_tick"]) * float(found["tick_size"])
            self.told.append((oid, seen[0], filled, price, float(found["exec_qty"])))
            self.times.append((int(found["exch_timestamp"]), int(self.core.current_timestamp)))
            if seen[0] not in (hft.NEW, PARTIALLY_FILLED):
                del self.active[oid]

    def submit(self, request: dict[str, Any]) -> None:
        oid, size = int(request["id"]), float(request["size"])
        kind, tif = (hft.MARKET, hft.GTC) if request["tif"] == MARKET else (hft.LIMIT, int(request["tif"]))
        send = self.core.submit_buy_order if request["side"] > 0 else self.core.submit_sell_order
        assert send(0, oid, float(request["price"]), size, tif, kind, False) == 0, request
        self.active[oid] = (hft.NONE, size)

    def cancel(self, request: dict[str, Any]) -> None:
        found = self.order(int(request["id"]))
        if found is not None and found["status"] in (hft.NEW, PARTIALLY_FILLED) and found["req"] == hft.NONE:
            self.core.cancel(0, int(request["id"]), False)


def run(source: str, target: str) -> None:
    given = np.load(source)
    settings = json.loads(str(given["settings"]))
    rows = events(given)
    began = time.process_time()
    market = Run(rows, settings)
    requests = {name: given[name] for name in ("t", "kind", "id", "side", "price", "size", "tif")}
    for k in range(len(requests["t"])):
        request = {name: values[k] for name, values in requests.items()}
        market.until(int(request["t"]))
        (market.cancel if request["kind"] else market.submit)(request)
    market.until(int(settings["end_ns"]))
    state = market.state()
    took_s = time.process_time() - began
    rows_told = np.array(market.told, np.float64).reshape(-1, 5)
    times = np.array(market.times, np.int64).reshape(-1, 2)
    np.savez(
        target,
        id=rows_told[:, 0],
        status=rows_told[:, 1],
        filled=rows_told[:, 2],
        price=rows_told[:, 3],
        last=rows_told[:, 4],
        exch_ts=times[:, 0],
        recv_ts=times[:, 1],
        state=np.array([state["position"], state["balance"], state["fee"]]),
        cpu_s=np.array(took_s),
    )


if __name__ == "__main__":
    for at in range(1, len(sys.argv), 2):
        run(sys.argv[at], sys.argv[at + 1])
