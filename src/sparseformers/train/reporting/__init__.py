"""How a run is doing: figures of the steps, trackers, signs of life, the summary."""
