"""The exact tier of the backtest: the live engine against the venue's rules, on raw ticks, with latencies and queues.

    latency     how long requests, answers and pushes take: constant, lognormal, or a table of measured quantiles
    measured    that table, from the journals of live sessions
    queues      who trades before a resting order
    impact      what we took is gone for us, until it decays
    tape        raw rows of the lake on the market's clock, a symbol at a time
    resting     one resting order on the tape: when it fills, and by how much
    exchange    the venue behind the latencies: actions in, events out, in order of receipt
    session     an engine that lives through the seconds of a window against it

What is simulated how, and what is not, is told in docs/backtest.md.
"""
