"""Merging fine-tuned models, and the deltas they are made of. Knows streams of deltas; ignorant of commands."""
