"""Runs a command on a terminal of its own, types into it, and prints what was seen there.

python on_terminal.py COLUMNS KEYS COMMAND…; KEYS is JSON: [[TEXT TO WAIT FOR, WHAT TO TYPE THEN], …]. Exits with the command's
code. A process of its own, because forking one that has threads may never come to an end.
"""

import json
import os
import pty
import sys


def main(columns: str, keys: str, *command: str) -> int:
    waited = json.loads(keys)
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ |= {"TERM": "xterm-256color", "COLUMNS": columns}
        os.execv(command[0], command)
    seen = b""
    while True:
        try:
            seen += (read := os.read(terminal, 65536))
        except OSError:  # Linux's way to say that the other end is closed
            read = b""
        if not read:
            break
        if waited and waited[0][0].encode() in seen:
            os.write(terminal, waited.pop(0)[1].encode())
    sys.stdout.buffer.write(seen)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
