"""Conversations: read, rendered by a chat template, and which of their tokens the assistant says."""
