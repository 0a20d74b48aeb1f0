"""Public history of others into the lake's own tables: Tardis.dev's CSV files and Bitget's downloads.

    files     bytes of a file, packed or not, as frames of whole messages
    tardis    the columns of Tardis.dev -> receipts
    bitget    the columns of Bitget's data page -> receipts and candles
    sheet     rows of an .xlsx file, a piece at a time
    landing   receipts -> write-ahead log, hour by hour, with links and a universe; then seal

An import is recorded like a feed: every promise of the lake holds for it, and whatever runs on recorded ticks runs on
it. What a file does not tell is not made up: an import has no volume of 24 hours where the files have none, and its
links say only that rows came (see `landing`).

To add a format: a module with `FORMAT`, which tells what a header means and how its frames become receipts.
"""
