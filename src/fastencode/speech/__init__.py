"""Sound in: audio files, every layer of a Hugging Face speech model, low-level acoustic features."""
