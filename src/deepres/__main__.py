"""`deepres`, the command, and `python -m deepres`."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while modules load there is nothing to tell, and nothing to undo

from deepres.cli import main

if __name__ == "__main__":
    main()
