"""Growing checkpoints: from a request to a plan to streams. They know axes, maps and headers; ignorant of live
models.
"""
