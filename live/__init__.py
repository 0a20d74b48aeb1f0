from shared.environment import need

need("msgspec", "make setup (or make setup-live, as .venv-live/bin/python)")
