"""Bitget, seen from our side: a port that knows no API generation, with v2 (classic accounts) behind it.

    wire       payloads both ways, no I/O        (Bitget v2 documentation, field by field)
    ticks      decoded pushes -> columns
    session    a WebSocket without the socket
    rest       requests and signatures, no I/O
    transport  REST over a socket
    streams    WebSockets that are kept alive and replaced in time; these two are the only sockets

Mode of the account, everywhere here: USDT-FUTURES, one-way, crossed, margin coin USDT.
"""
