"""A worker that does what its assignment's configuration text says, instead of moving mail.

The text is JSON: `lives` (a directory) counts the lives of all workers, so that only the first may misbehave; `fail`
(text) says that it cannot start; `first` is what the first life does once ready: "die", "hang" or nothing; `stubborn`
ignores a drain; `reasons` goes into its reports. Connections are answered with its generation and closed.
"""

import json
import os
import select
import signal
import socket
import sys
import time


def main() -> None:
    """Work for the supervisor at the inherited socket."""
    line = socket.socket(fileno=int(sys.argv[sys.argv.index("--control") + 1]))
    assigned = json.loads(line.makefile("rb").readline())["assign"]
    plan = json.loads(assigned["text"])
    with open(os.path.join(plan["lives"], "lives"), "a+") as file:  # noqa: PTH118, PTH123 -- starts in a moment without pathlib
        file.write(f"{assigned['generation']}\n")
        file.seek(0)
        first = len(file.readlines()) == 1
    if "fail" in plan:
        tell(line, {"failed": plan["fail"]})
        sys.exit(2)
    listening = [socket.socket(fileno=number) for number, _ in assigned["sockets"]]
    for one in listening:
        one.listen()
    tell(line, {"ready": "v1"})
    if first and plan.get("first") == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if first and plan.get("first") == "hang":
        time.sleep(60)
    serve(line, listening, assigned, plan)


def serve(line: socket.socket, listening: list[socket.socket], assigned: dict, plan: dict) -> None:
    """Answer connections and report until told to leave."""
    while True:
        tell(line, {"report": {"reasons": plan.get("reasons", []), "notices": [], "lag_ms": 0}})
        for one in select.select([line, *listening], [], [], 0.05)[0]:
            if one is line:
                said = line.recv(4096)
                if not said or b"hurry" in said or not plan.get("stubborn"):
                    sys.exit(0)
                continue
            try:
                client, _ = one.accept()
            except BlockingIOError:
                continue
            with client:
                client.sendall(b"%d" % assigned["generation"])


def tell(line: socket.socket, document: dict) -> None:
    """Send one line."""
    line.sendall(json.dumps(document).encode() + b"\n")


if __name__ == "__main__":
    main()
