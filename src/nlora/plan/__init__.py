"""From what is asked to what is done: a configuration is resolved once, into a frozen plan."""
