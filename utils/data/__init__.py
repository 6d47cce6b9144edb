"""Images: fetched, listed, split, decoded once, and served."""
