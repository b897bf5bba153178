"""How `tiny-t5` is made: `python -m training_tools.tiny_t5.train --help`."""
