"""A shell on a terminal of its own, for the gateway that the page is tried with.

Standard input and output are the terminal's; each line on descriptor 3, `COLS ROWS`, is a new size.
"""

import fcntl
import os
import pty
import select
import struct
import sys
import termios


def main() -> int:
    cols, rows, *command = sys.argv[1:]
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(TERM="xterm-256color", COLORTERM="truecolor", PS1="you@node:\\w$ ")
        os.execvp(command[0], command)

    def resize(to_cols: str, to_rows: str) -> None:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", int(to_rows), int(to_cols), 0, 0))

    resize(cols, rows)
    watched = [0, 3, terminal]
    while True:
        for ready in select.select(watched, [], [])[0]:
            try:
                data = os.read(ready, 65536)
            except OSError:  # Linux' way to say that nobody has the other side open
                data = b""
            if ready == terminal:
                if not data:
                    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                while data:
                    data = data[os.write(1, data):]
            elif not data:
                watched.remove(ready)
                if ready == 0:
                    return 0
            elif ready == 3:
                for line in data.decode().splitlines():
                    resize(*line.split())
            else:
                while data:
                    data = data[os.write(terminal, data):]


if __name__ == "__main__":
    sys.exit(main())
