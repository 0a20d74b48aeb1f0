from shared.environment import need

need("polars", "make setup")
