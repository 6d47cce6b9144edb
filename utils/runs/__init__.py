"""The life of a run: which one it is, its folder, its checkpoints, its screen."""
