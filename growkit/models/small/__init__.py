"""Small modules on stock models: where they go, what growkit's own ones compute, and the folder these are kept in."""
