"""Folders of safetensors files on disk: headers, rows, streamed writing, configs. They know bytes; ignorant of
meaning.
"""
