"""The classification task: its recipe and loss, its test protocols, its errors."""
