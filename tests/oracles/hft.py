"""hftbacktest as an oracle: events and orders from an .npz, what became of the orders into another.

Runs by itself under `.venv-oracles` (hftbacktest needs an older numpy than ours) and imports nothing of this project:
    .venv-oracles/bin/python tests/oracles/hft.py IN.npz OUT.npz

IN   ev, exch_ts, px, qty: market events (hftbacktest's flags); t, kind, id, side, price, size, tif: requests in order of
     time, kind 0 to submit and 1 to cancel, tif 0 rests, 1 post-only, 3 IOC, 9 market; settings: JSON
OUT  id, status, filled, price, exch_ts, recv_ts: one row a response that changed an order; state: position, balance, fee
     and seconds of CPU of the run

Just-in-time compiling is off: it takes ten seconds, and all work is done in hftbacktest's Rust core either way.
"""

import ctypes
import json
import os
import sys
import time

os.environ["NUMBA_DISABLE_JIT"] = "1"

import hftbacktest as hft
import numpy as np
from hftbacktest import binding
from hftbacktest.types import event_dtype, state_values_dtype

MARKET = 9
TIME_IS_UP, END_OF_DATA, MARKET_FEED, ORDER_RESPONSE = range(4)


def events(given):
    rows = np.zeros(len(given["ev"]), event_dtype)
    rows["ev"] = given["ev"]
    rows["exch_ts"] = rows["local_ts"] = given["exch_ts"]
    rows["px"], rows["qty"] = given["px"], given["qty"]
    return rows


def asset(rows, settings):
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
    return made.power_prob_queue_model(settings["power"])


class Run:
    def __init__(self, rows, settings):
        self.core = hft.HashMapMarketDepthBacktest([asset(rows, settings)])
        self.core.elapse(0)  # from now on its clock is that of the first event
        self.active = {}  # id -> (status, leaves) as last seen
        self.told = []

    def order(self, oid):
        """Return the order's struct; the wrapper's own getter needs the compiler."""
        address = binding.orders_get(binding.hashmapbt_orders(self.core.ptr, 0), oid)
        if not address:
            return None
        raw = (ctypes.c_char * binding.order_dtype.itemsize).from_address(address)
        return np.frombuffer(raw, binding.order_dtype)[0]

    def state(self):
        address = binding.hashmapbt_state_values(self.core.ptr, 0)
        raw = (ctypes.c_char * state_values_dtype.itemsize).from_address(address)
        return np.frombuffer(raw, state_values_dtype)[0].copy()

    def until(self, at_ns):
        """Let time pass, and look at the orders after every response."""
        while self.active and self.core.current_timestamp < at_ns:
            answer = self.core.wait_next_feed(True, at_ns - self.core.current_timestamp)
            if answer == ORDER_RESPONSE:
                self.look()
            elif answer == END_OF_DATA:
                return
            else:
                assert answer in (TIME_IS_UP, MARKET_FEED), f"hftbacktest failed with {answer}"
        if self.core.current_timestamp < at_ns:
            self.core.elapse(at_ns - self.core.current_timestamp)

    def look(self):
        for oid in list(self.active):
            found = self.order(oid)
            seen = (int(found["status"]), float(found["leaves_qty"]))
            if seen == self.active[oid]:
                continue
            filled = self.active[oid][1] - seen[1]
            self.active[oid] = seen
            price = float(found["exec_price_tick"]) * float(found["tick_size"])
            self.told.append(
                (oid, seen[0], filled, price, float(found["exec_qty"]), int(found["exch_timestamp"]),
                 int(self.core.current_timestamp))
            )  # fmt: skip
            if seen[0] not in (hft.NEW, binding_partially_filled()):
                del self.active[oid]

    def submit(self, request):
        oid, size = int(request["id"]), float(request["size"])
        kind, tif = (hft.MARKET, hft.GTC) if request["tif"] == MARKET else (hft.LIMIT, int(request["tif"]))
        send = self.core.submit_buy_order if request["side"] > 0 else self.core.submit_sell_order
        assert send(0, oid, float(request["price"]), size, tif, kind, False) == 0, request
        self.active[oid] = (hft.NONE, size)

    def cancel(self, request):
        found = self.order(int(request["id"]))
        if found is not None and found["status"] in (hft.NEW, binding_partially_filled()) and found["req"] == hft.NONE:
            self.core.cancel(0, int(request["id"]), False)


def binding_partially_filled():
    from hftbacktest import order

    return order.PARTIALLY_FILLED


def main(source, target):
    given = np.load(source)
    settings = json.loads(str(given["settings"]))
    rows = events(given)
    began = time.process_time()
    run = Run(rows, settings)
    requests = {name: given[name] for name in ("t", "kind", "id", "side", "price", "size", "tif")}
    for k in range(len(requests["t"])):
        request = {name: values[k] for name, values in requests.items()}
        run.until(int(request["t"]))
        (run.cancel if request["kind"] else run.submit)(request)
    run.until(int(settings["end_ns"]))
    state = run.state()
    took_s = time.process_time() - began
    columns = list(zip(*run.told, strict=True)) if run.told else [[]] * 7
    names = ("id", "status", "filled", "price", "last", "exch_ts", "recv_ts")
    np.savez(
        target,
        **{name: np.array(values) for name, values in zip(names, columns, strict=True)},
        state=np.array([state["position"], state["balance"], state["fee"]]),
        cpu_s=np.array(took_s),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
