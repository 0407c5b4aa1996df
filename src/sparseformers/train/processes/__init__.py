"""Several processes as one: who is there, whose end is noticed, whose weights are spread."""
