"""A reader of messages as slow and plain as can be, which the one of the package is compared with."""


def read_plainly(octets):
    """Content, names of what was irregular, and the rest, found octet by octet; `octets` must hold an end."""
    lines, at = [], 0
    while True:
        end = octets.index(b"\r\n", at)
        line, at = octets[at:end], end + 2
        if line == b".":
            break
        lines.append(line[1:] if line.startswith(b".") else line)
    content, seen = bytearray(), set()
    for line in lines:
        octets_of_line = line.replace(b"\0", b"") + b"\r\n"
        seen |= {"nul"} if b"\0" in line else set()
        for number, octet in enumerate(octets_of_line):
            pair = octets_of_line[number : number + 2] == b"\r\n"
            after_cr = number and octets_of_line[number - 1] == 13
            if octet == 13 and not pair:
                seen.add("bare_cr")
                content += b" "
            elif octet == 10 and not after_cr:
                seen.add("bare_lf")
                content += b"\r\n"
            else:
                content.append(octet)
    return bytes(content), seen, octets[at:]
