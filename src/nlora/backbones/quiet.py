"""Warnings of the libraries that nobody who runs `nlora` can mend."""

import sys
import warnings


def quiet() -> None:
    """Ignore these warnings, unless Python was asked to show warnings."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore", FutureWarning)  # what will be renamed one day
        warnings.filterwarnings("ignore", "fan_in_fan_out is set")  # PEFT mends it by itself
