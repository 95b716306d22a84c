"""Pure functions on deltas. They know tensors and numbers; ignorant of models and members."""
