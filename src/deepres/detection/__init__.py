"""The detection task: its recipe and losses, its test protocols, its mean average precision."""
