"""Gates: which skill a sequence opens, decided once from what the base makes of it, and what that promises."""
