"""What a run goes on from: collected, written whole or not at all, found again, kept."""
