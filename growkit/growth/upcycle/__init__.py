"""From dense models to mixtures of experts."""
