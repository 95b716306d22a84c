"""Who learns in a run: all, parts, or small modules on a frozen model; and what is left of it."""
