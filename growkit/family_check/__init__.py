"""Families' tables held against stock models: small ones, each growth measured, and what is wrong blamed on a line."""
