"""Which of aiosmtpd's own tests run on our class, and which do not and why."""

MODULES = ("test_smtp.py", "test_smtps.py", "test_smtpsmuggling.py", "test_starttls.py")
# What is left out, and why: a pattern that finds "Class::test" anywhere in it, and the reason.
LEFT_OUT = {
    r"[Aa]uth|AUTH": "AUTH is our own: PLAIN and LOGIN, within TLS, against a users file; test_smtp_auth, dialogs",
    r"test_help": "HELP has one constant answer",
    r"test_(mail|rcpt)_valid_address": "many lack brackets: strict own address parser",
    r"test_(mail|rcpt)_(e?smtp_)?(invalid_address|errsyntax|esmtp)|limitlocalpart|invalid_body": "other codes",
    r"test_vrfy_not_address|TestStrictASCII::|test_bad_encod": "non-ASCII octets are refused by other codes",
    r"test_ehlo$|greeting": "greeting and EHLO list are our own; dialogs/ehlo-offers-what-the-next-hop-can",
    r"TestLimits::|limit_bogus": "limits are our own; test_smtp_limits",
    r"long_line|line_too_long|too_long_(body|line)|long_body": "long lines are relayed, sizes counted by us",
    r"dots_escaped|TestProtocol::": "needs decode_data, or the transport of a mock; test_data_reader",
    r"unexpected_errors|exception_handler|process_message_error": "every fault is a constant 451; dialogs/fault-*",
    r"TestClientCrash::": "watches aiosmtpd's own stream writer; dialogs/client-lost-*",
    r"test_close_after_helo": "a client that closed its half still gets its replies; dialogs/half-close-after-quit",
    r"TestTimeout::": "a client is told 421 before it is cut off; dialogs/silent-client",
    r"TestNoTLS::test_disabled|failed_handshake|TestTLSEnding::": "watches aiosmtpd's own TLS; dialogs/*tls*",
}
