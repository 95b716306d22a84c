"""Text to tokens to batches. They know files, tokenizers and windows; ignorant of models."""
