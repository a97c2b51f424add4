"""Messages a second that one process hands to a next hop on this machine: ours beside aiosmtplib.

    bench_next_hop.py [--messages N] [--concurrent N] [--size OCTETS] [--recipients N] [--runs N]

Both sides keep their connections: ours takes them from its pool, each task of aiosmtplib has one of its own. The sink
is a process of its own: smtp-sink if it is installed, else a small one made here. Prints medians of interleaved runs
under uvloop; the processor time is the figure to compare where the machine has other work.
"""

import argparse
import asyncio
import multiprocessing
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import aiosmtplib
import uvloop

from filter.envelope import Client, MailFrom, RcptTo
from filter.next_hop import SmtpNextHop
from filter.next_hop_setup import NextHopOptions
from filter.tls_policy import TlsPolicy

HEADER = b"From: <a@sender.example>\r\nTo: <b@customer.example>\r\nSubject: Statement\r\n\r\n"
LINE = b"Your statement is ready. It covers the first to the last day of the month.\r\n"
TRACE = b"Received: from app.example by filter.example with ESMTP; Mon, 02 Nov 2026 10:00:00 +0000\r\n"


class SmallSink(asyncio.Protocol):
    """Takes every message; knows just enough SMTP for that."""

    def connection_made(self, transport):
        """Greet."""
        self.transport = transport
        self.rest = b""
        self.in_data = False
        transport.write(b"220 sink ESMTP\r\n")

    def data_received(self, data):
        """Answer every command that is complete, in one piece."""
        self.rest += data
        out = []
        while True:
            if self.in_data:
                end = self.rest.find(b"\r\n.\r\n")
                if end < 0:
                    break
                self.rest = self.rest[end + 5 :]
                self.in_data = False
                out.append(b"250 2.0.0 Ok\r\n")
                continue
            line, found, rest = self.rest.partition(b"\r\n")
            if not found:
                break
            self.rest = rest
            verb = line[:4].upper()
            if verb == b"EHLO":
                out.append(b"250-sink\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
            elif verb == b"DATA":
                self.in_data = True
                out.append(b"354 Go ahead\r\n")
            else:
                out.append(b"250 2.1.0 Ok\r\n")
        if out:
            self.transport.write(b"".join(out))


def serve(listener: socket.socket) -> None:
    """Run the small sink for ever."""

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(SmallSink, sock=listener, backlog=500)
        await server.serve_forever()

    uvloop.run(run())


@contextmanager
def sink() -> Iterator[tuple[str, int, str]]:
    """A sink in a process of its own: host, port, name."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    program = shutil.which("smtp-sink", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if program:
        listener.close()
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        process = subprocess.Popen([program, *user, f"127.0.0.1:{port}", "500"])
        time.sleep(1)
        try:
            yield "127.0.0.1", port, "smtp-sink"
        finally:
            process.terminate()
            process.wait()
        return
    worker = multiprocessing.get_context("spawn").Process(target=serve, args=(listener,), daemon=True)
    listener.listen(500)
    worker.start()
    listener.close()
    try:
        yield "127.0.0.1", port, "own small sink"
    finally:
        worker.terminate()
        worker.join()


Seconds = tuple[float, float]  # by the clock, of this process's processor time


async def shared_out(messages: int, concurrent: int, send_all: Callable[[int], Awaitable[None]]) -> Seconds:
    """Seconds that it takes so many tasks to send their share; each message is awaited before the next."""
    share = messages // concurrent
    start, busy = time.perf_counter(), time.process_time()
    await asyncio.gather(*(send_all(share) for _ in range(concurrent)))
    return time.perf_counter() - start, time.process_time() - busy


async def ours(host: str, port: int, args: argparse.Namespace, content: bytes) -> Seconds:
    """Seconds for all messages through `SmtpNextHop`."""
    options = NextHopOptions(hosts=((host, port),), hostname="filter.example", tls=TlsPolicy.OFF)
    hop = SmtpNextHop(options)
    client = Client("192.0.2.1", "app.example", esmtp=True)
    mail = MailFrom(b"a@sender.example")
    recipients = [RcptTo(b"b%d@customer.example" % number) for number in range(args.recipients)]

    async def send_all(share: int) -> None:
        for _ in range(share):
            transaction = hop.transaction(mail, client)
            for recipient in recipients:
                reply = await transaction.rcpt(recipient)
                assert reply.ok, reply
            reply = await transaction.data((TRACE, content))
            assert reply.ok, reply

    await shared_out(args.concurrent * 5, args.concurrent, send_all)
    seconds = await shared_out(args.messages, args.concurrent, send_all)
    await hop.close()
    return seconds


async def theirs(host: str, port: int, args: argparse.Namespace, content: bytes) -> Seconds:
    """Seconds for all messages through aiosmtplib, one connection kept for each task."""
    recipients = [f"b{number}@customer.example" for number in range(args.recipients)]
    ready: list[aiosmtplib.SMTP] = []
    for _ in range(args.concurrent):
        smtp = aiosmtplib.SMTP(hostname=host, port=port, start_tls=False, use_tls=False)
        await smtp.connect()
        ready.append(smtp)

    async def send_all(share: int) -> None:
        smtp = ready.pop()
        for _ in range(share):
            await smtp.sendmail("a@sender.example", recipients, TRACE + content)
        ready.append(smtp)

    await shared_out(args.concurrent * 5, args.concurrent, send_all)
    seconds = await shared_out(args.messages, args.concurrent, send_all)
    for smtp in ready:
        smtp.close()
    return seconds


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--concurrent", type=int, default=20)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--recipients", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    content = HEADER + LINE * ((args.size - len(HEADER)) // len(LINE))
    figures: dict[str, list[Seconds]] = {"ours": [], "aiosmtplib": []}
    with sink() as (host, port, name):
        for _ in range(args.runs):
            for who, send in (("ours", ours), ("aiosmtplib", theirs)):
                figures[who].append(uvloop.run(send(host, port, args, content)))
    print(
        f"{args.messages} messages of {len(content)} octets to {args.recipients} recipient(s), "
        f"{args.concurrent} at once, {name}, Python {sys.version.split()[0]}, uvloop {uvloop.__version__}"
    )
    for who, runs in figures.items():
        rates = [args.messages / clock for clock, _ in runs]
        busy = statistics.median(busy for _, busy in runs) / args.messages * 1e6
        print(
            f"  {who:<11} {statistics.median(rates):8,.0f} messages/s  ({min(rates):,.0f} to {max(rates):,.0f})"
            f"  {busy:6.0f} us of processor time for a message"
        )


if __name__ == "__main__":
    main()
