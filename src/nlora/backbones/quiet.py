"""Warnings of the libraries that nobody who runs `nlora` can mend."""

import logging
import sys
import warnings


def quiet() -> None:
    """Ignore these warnings, unless Python was asked to show warnings."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore", FutureWarning)  # what will be renamed one day
        warnings.filterwarnings("ignore", "fan_in_fan_out is set")  # PEFT mends it by itself
        warnings.filterwarnings("ignore", "MatMul8bitLt: inputs will be cast")  # for each matrix
        warnings.filterwarnings("ignore", "You passed `quantization_config`")  # to dequantise
        # PEFT imports bitsandbytes where it is installed, which then says what it would like, too.
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
