"""What judges a photo: frozen blind quality models, and how the bundled one was made."""
