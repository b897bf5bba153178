"""What a user's own script calls: `nlora.run`, `nlora.learn`, `nlora.load`, and what they take."""
