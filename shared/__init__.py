"""What research and trading share. Import order, left before right (import-linter holds it):

types, errors, settings, log -> costs -> features -> labels, model -> strategy -> bitget | lake -> simulator
"""
