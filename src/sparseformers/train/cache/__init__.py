"""Fixed views with the teacher's embeddings, made once for many runs."""
