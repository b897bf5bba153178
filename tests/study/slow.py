"""A module that takes a while to import, as PyTorch and Transformers do."""

import time

time.sleep(1)
