"""Growth in depth: which layer of the source each layer of the target is."""
