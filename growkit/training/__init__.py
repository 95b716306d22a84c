"""Training and what it needs: text to tokens, batches, models from scratch, losses. Knows live models; ignorant of how
checkpoints are grown.
"""
