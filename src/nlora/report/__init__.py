"""What is made from model directories and ledgers. Reads the store only."""
