"""Families of models: sizes that are grown one from another and trained one after another."""
