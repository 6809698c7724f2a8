"""Arrays -> figures: the slide that is exported, and where the boxes of a flow stand."""
