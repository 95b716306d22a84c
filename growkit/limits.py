"""The largest counts that growkit plans for: far beyond every model and run, far below what would exhaust memory. Knows
numbers alone.
"""

AXIS = 1 << 24  # of any axis: hidden, vocab, ...
LAYERS = 10_000
EXPERTS = 4_096  # of one layer
STEPS = 10**9  # of a run, or until something happens in it
TOKENS = 10**15
WEIGHT = 1e6  # of a merge, either sign
BATCH = 1 << 20  # of sequences
SEEDS = (-(1 << 63), (1 << 64) - 1)  # what a generator takes
