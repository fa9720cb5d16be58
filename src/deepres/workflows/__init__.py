"""The work behind a verb of the command line: configure, train, finetune, evaluate, predict, export."""
