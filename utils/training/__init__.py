"""The loop: a method over a stream, and what is measured on the way."""
