"""What is run from a clone to compare and to time: recipes side by side, speed and its targets, baselines."""
