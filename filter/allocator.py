"""Keep freed memory inside the process, so that the HTML parser's big chunks are not mapped anew for every message.

glibc returns large chunks to the kernel as soon as they are freed; Lexbor asks for the same chunks again with the next
document and pays for the page faults (more than half of its time on a 30 kB message). Programs call
`keep_freed_memory` once at start; importing this module changes nothing. Never raises; without glibc it does nothing.
"""

import ctypes

# <malloc.h>; the values are part of glibc's ABI.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3

_KEPT = 64 << 20
_SPARE = 16 << 20


def keep_freed_memory() -> bool:
    """Ask glibc to keep up to 64 MiB of freed memory for reuse; return whether there was a glibc to ask."""
    try:
        libc = ctypes.CDLL(None)
        version, mallopt = libc.gnu_get_libc_version, libc.mallopt
    except (OSError, AttributeError, TypeError):
        return False
    del version  # only glibc has it; others offer a `mallopt` with other meanings
    options = ((_M_MMAP_THRESHOLD, _KEPT), (_M_TRIM_THRESHOLD, _KEPT), (_M_TOP_PAD, _SPARE))
    # every option is set, whatever the first answers
    return all([mallopt(option, value) == 1 for option, value in options])
