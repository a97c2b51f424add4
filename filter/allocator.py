"""Keep freed memory inside the process, so that the HTML parser's big chunks are not mapped anew for every message.

glibc returns a chunk above its mmap threshold to the kernel as soon as it is freed; Lexbor asks for the same chunks
with the next page and pays for the page faults (half of its time on a 30 kB page). The threshold is dynamic: it rises
to the size of the largest chunk freed so far, up to 32 MiB (mallopt(3), M_MMAP_THRESHOLD). So one such chunk is taken,
never touched, and freed. Never raises; other allocators are not affected.
"""

from functools import cache

_CHUNK = 31 << 20


@cache
def keep_freed_memory() -> None:
    """Let the allocator keep up to twice 31 MiB of freed memory for reuse; once per process, the first page does it."""
    bytes(_CHUNK)
