"""The model in memory: opened from its directory, it answers, learns, is measured and exported."""
