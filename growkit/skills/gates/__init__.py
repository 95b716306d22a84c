"""Gates: which skill a sequence opens, decided once from what the base makes of it, with a promise for all other text."""
