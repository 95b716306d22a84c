"""A run: stages, steps and checkpoints. They know live models, optimizers and PyTorch's own engine; ignorant of how a
model was grown."""
