"""Skills over a frozen model: a panel of small control matrices, programs on it, and what they do to one another."""
