"""Growth in width: sizes, and the map each axis gets."""
