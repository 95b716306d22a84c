"""Pure functions from tensors to tensors. They know no names, families, files or configs."""
