"""What the drawn datasets are made of: characters of fonts, varied like handwriting, and further renditions."""
