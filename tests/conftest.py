"""For all tests: one thread (tiny models only wait for a second one) and no network."""

import os

import torch

os.environ["HF_HUB_OFFLINE"] = "1"
torch.set_num_threads(1)
