"""Files that are whole or absent, and files of others that are read without trust."""
