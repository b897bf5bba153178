"""Models and tokenizers by name or path: found, downloaded, loaded, and how they are built."""
