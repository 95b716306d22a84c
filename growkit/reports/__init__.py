"""Runs read back: tables and pictures. They know metrics; ignorant of how they came about, and of torch."""
