"""What a student costs and how fast it is, beside its teacher on this machine."""
