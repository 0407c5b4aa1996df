"""Cost and speed of a student beside its teacher, on this machine."""
