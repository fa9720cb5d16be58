"""Where images come from (`sources`), augmentation (`augment`) and resident batches (`memory`)."""
