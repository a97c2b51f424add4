"""Which of aiosmtpd's own tests run on our class, and which of these must fail and why."""

from collections.abc import Iterable

# Modules that run in one process, side by side with the other part.
PARTS = (
    ("test_smtp.py",),
    (
        "test_smtps.py",
        "test_smtpsmuggling.py",
        "test_starttls.py",
        "test_proxyprotocol.py",
        "test_handlers.py",
        "test_server.py",
    ),
)
# Test classes of those modules that use no SMTP session, and what they are about.
NOT_OUR_CLASS = {
    "test_smtp::TestSanitize": "how aiosmtpd prints credentials, which this project does not use",
    "test_proxyprotocol::TestProxyData": "aiosmtpd's parser of PROXY headers, used as it is",
    "test_proxyprotocol::TestProxyTLV": "the same",
    "test_proxyprotocol::TestModule": "the same",
    "test_handlers::TestCLI": "options of aiosmtpd's command line",
    "test_handlers::TestProxy": "aiosmtpd's relaying handler, on a fixed port",
    "test_handlers::TestProxyMocked": "the same",
    "test_server::TestController": "how a controller starts and stops; this project has none",
    "test_server::TestUnixSocketController": "the same",
    "test_server::TestUnthreaded": "the same",
    "test_server::TestFactory": "the same",
    "test_server::TestCompat": "aiosmtpd's version number",
}


def _cases(test: str, cases: Iterable[object]) -> tuple[str, ...]:
    return tuple(f"{test}[{case}]" for case in cases)


_WITHOUT_BRACKETS = (0, 2, 4, *range(6, 19), 21, 22, *range(24, 40))
_SOURCE_ROUTES = (19, 20)

# For each reason the tests, or single cases of a test, that fail for it: "module::Class::test" or "...::test[case]".
EXPECTED_FAILURES: dict[str, tuple[str, ...]] = {
    "a path stands in brackets (RFC 5321 section 4.1.2); own strict parser, test_path": (
        *_cases("test_smtp::TestSMTP::test_mail_valid_address", _WITHOUT_BRACKETS),
        *_cases("test_smtp::TestSMTP::test_rcpt_valid_address", (*_WITHOUT_BRACKETS, 41, 42)),
        "test_smtp::TestCustomization::test_limitlocalpart",
        "test_smtp::TestSMTPWithController::test_bad_encodings",
    ),
    "a source route is refused, as the address behind it is not the one that is relayed to; test_path": (
        *_cases("test_smtp::TestSMTP::test_mail_valid_address", _SOURCE_ROUTES),
        *_cases("test_smtp::TestSMTP::test_rcpt_valid_address", _SOURCE_ROUTES),
    ),
    "a bad path is refused by 501 at MAIL and by 553 at RCPT, whatever is wrong with it; test_path": (
        "test_smtp::TestSMTP::test_mail_invalid_address",
        "test_smtp::TestSMTP::test_mail_esmtp_invalid_address",
        "test_smtp::TestSMTP::test_rcpt_smtp_errsyntax[noaddr]",
        "test_smtp::TestSMTP::test_rcpt_smtp_errsyntax[malformed]",
        "test_smtp::TestSMTP::test_rcpt_esmtp_errsyntax[noaddr]",
        "test_smtp::TestSMTP::test_rcpt_esmtp_errsyntax[malformed]",
        "test_smtp::TestStrictASCII::test_bad_encoded_param",
    ),
    "a parameter that was not offered is refused by 555, by whatever extension it is; test_path": (
        "test_smtp::TestSMTP::test_mail_smtp_errsyntax[params_noesmtp]",
        "test_smtp::TestSMTP::test_mail_esmtp_errsyntax[malformed]",
        "test_smtp::TestSMTP::test_rcpt_smtp_errsyntax[params]",
        "test_smtp::TestSMTPWithController::test_mail_invalid_body",
        "test_smtp::TestStrictASCII::test_mail_param",
    ),
    "whether 8-bit content can be passed on is for the door to say, not for the session; test_smtp_door": (
        "test_smtp::TestStrictASCII::test_data",
    ),
    "HELP has one answer, which names the RFC; dialogs/sequence": (
        "test_smtp::TestSMTP::test_help",
        "test_smtp::TestSMTP::test_help_",
        "test_smtp::TestSMTP::test_help_esmtp",
        "test_smtp::TestSMTP::test_help_bad_arg",
        "test_smtp::TestRequiredAuthentication::test_help_authenticated",
        "test_starttls::TestStartTLS::test_help_starttls",
        "test_starttls::TestStartTLS::test_help_after_starttls",
    ),
    "VRFY looks at no address and has one answer; dialogs/sequence": ("test_smtp::TestSMTP::test_vrfy_not_address",),
    "EHLO offers what the next hop can, and no HELP; dialogs/ehlo-offers-what-the-next-hop-can": (
        "test_smtp::TestSMTP::test_ehlo",
        "test_smtp::TestAuthMechanisms::test_ehlo",
    ),
    "the greeting names no software": (
        "test_smtp::TestCustomization::test_default_greeting",
        "test_smtp::TestCustomization::test_custom_greeting",
    ),
    "AUTH is PLAIN and LOGIN against passwords; a handler adds no mechanism and no reply; test_smtp_auth": (
        "test_smtp::TestSMTPAuth::test_auth_loginteract_warning",
        "test_smtp::TestAuthMechanisms::test_custom_mechanism",
        "test_smtp::TestAuthMechanisms::test_DENYFALSE",
        "test_smtp::TestAuthMechanisms::test_DENYMISSING",
        "test_smtp::TestAuthMechanisms::test_NONE",
        "test_smtp::TestAuthenticator::test_fail_withmesg",
        "test_handlers::TestHooks::test_hook_AUTH",
    ),
    "the client is told to say EHLO if it says AUTH after HELO": ("test_smtp::TestSMTPAuth::test_helo",),
    "credentials are not kept after they were checked": ("test_smtp::TestAuthenticator::test_success",),
    "command lines are not logged, with credentials hidden or without": (
        "test_smtp::TestAuthMechanisms::test_plain1_goodcreds_sanitized_log",
    ),
    "who may relay is the door's decision, at RCPT; dialogs/relays-for-nobody": (
        "test_smtp::TestRequiredAuthentication::test_help_unauthenticated",
        "test_smtp::TestRequiredAuthentication::test_vrfy_unauthenticated",
        "test_smtp::TestRequiredAuthentication::test_mail_unauthenticated",
        "test_smtp::TestRequiredAuthentication::test_rcpt_unauthenticated",
        "test_smtp::TestRequiredAuthentication::test_data_unauthenticated",
    ),
    "a client that said HELO must not pipeline; dialogs/pipelining-without-ehlo": (
        "test_smtp::TestProtocol::test_honors_mail_delimiters",
        "test_smtp::TestProtocol::test_empty_email",
    ),
    "content is octets, never decoded; test_data_reader": (
        "test_smtp::TestSMTPWithController::test_dots_escaped",
        "test_handlers::TestMessage::test_message_decoded",
    ),
    "a line is never too long for relaying, unless that is configured, and sizes are of octets; test_data_reader": (
        "test_smtp::TestSMTPWithController::test_data_line_too_long",
        "test_smtp::TestSMTPWithController::test_long_line_double_count",
        "test_smtp::TestSMTPWithController::test_too_long_line_delay_error",
        "test_smtp::TestSMTPWithController::test_too_long_lines_then_too_long_body",
    ),
    "aiosmtpd's reader of messages is not in use, so that a fake buffer in it changes nothing": (
        "test_smtp::TestSMTPWithController::test_long_line_leak",
    ),
    "the code is the same, and the text of the reply our own": (
        "test_smtp::TestSMTPWithController::test_too_long_body_delay_error",
    ),
    "a code outside of RFC 5321's grammar, as 599, becomes that of its class; test_replies": (
        "test_smtp::TestSMTPWithController::test_process_message_error",
        "test_handlers::TestHooks::test_hook_DATA",
    ),
    "commands are no methods smtp_NAME, and every fault is a constant 451 without its text; dialogs/fault-at-rcpt": (
        "test_smtp::TestSMTPWithController::test_unexpected_errors",
        "test_smtp::TestSMTPWithController::test_unexpected_errors_unhandled",
        "test_smtp::TestSMTPWithController::test_unexpected_errors_custom_response",
        "test_smtp::TestSMTPWithController::test_exception_handler_exception",
        "test_smtp::TestSMTPWithController::test_exception_handler_undescribable",
    ),
    "a handler's connection error is not the client's: 451, and the session goes on; dialogs/fault-in-delivery": (
        "test_smtp::TestSMTPWithController::test_exception_handler_multiple_connections_lost",
    ),
    "there is no stream writer whose close() could be watched; dialogs/client-lost-before-the-end": (
        "test_smtp::TestClientCrash::test_connection_reset_during_DATA",
        "test_smtp::TestClientCrash::test_connection_reset_during_command",
        "test_smtp::TestClientCrash::test_close_in_command_2",
        "test_smtp::TestClientCrash::test_close_in_data",
        "test_smtp::TestClientCrash::test_sockclose_after_helo",
    ),
    "a client that closed its half of the connection gets its replies; dialogs/half-close-after-quit": (
        "test_smtp::TestSleepingHandler::test_close_after_helo",
    ),
    "a silent client is told 421 before it is cut off; dialogs/silent-client": (
        "test_smtp::TestTimeout::test_timeout",
    ),
    "so is a silent balancer; dialogs/silent-balancer": (
        "test_proxyprotocol::TestWithController::test_timeout",
        "test_proxyprotocol::TestWithController::test_incomplete",
    ),
    "calls are limited by kind, not by command; dialogs/too-many-idle-commands, dialogs/too-many-errors": (
        "test_smtp::TestLimits::test_all_limit_15",
        "test_smtp::TestLimits::test_different_limits",
        "test_smtp::TestLimits::test_different_limits_custom_default",
        "test_smtp::TestLimits::test_limit_bogus",
    ),
    "STARTTLS that was not offered is not implemented, rather than unavailable for now": (
        "test_starttls::TestNoTLS::test_disabled_tls",
    ),
    "a handler has no say in TLS, and is told of no fault; dialogs/starttls": (
        "test_starttls::TestStartTLS::test_failed_handshake",
        "test_starttls::TestTLSEnding::test_tls_handshake_failing",
    ),
    "the session tells the version of TLS and not its inner state; dialogs/implicit-tls": (
        "test_starttls::TestTLSEnding::test_eof_received",
    ),
    "what is wrong with a refused PROXY header is not kept in the session; test_smtp_proxy": (
        "test_proxyprotocol::TestGetV1::test_invalid_sig",
        "test_proxyprotocol::TestGetV1::test_unsupported_family",
        "test_proxyprotocol::TestGetV1::test_unsupported_proto",
        "test_proxyprotocol::TestGetV1::test_too_long",
        "test_proxyprotocol::TestGetV1::test_malformed_nocr",
        "test_proxyprotocol::TestGetV1::test_malformed_notproxy",
        "test_proxyprotocol::TestGetV1::test_malformed_wrongtype_64",
        "test_proxyprotocol::TestGetV1::test_malformed_wrongtype_46",
        "test_proxyprotocol::TestGetV1::test_malformed_wrongtype_6mixed",
        "test_proxyprotocol::TestGetV1::test_malformed_addr",
        "test_proxyprotocol::TestGetV1::test_extra",
        "test_proxyprotocol::TestGetV1::test_malformed_addr4",
        "test_proxyprotocol::TestGetV1::test_ports_oob",
        "test_proxyprotocol::TestGetV1::test_portd_oob",
        "test_proxyprotocol::TestGetV2::test_invalid_sig",
        "test_proxyprotocol::TestGetV2::test_illegal_ver",
        "test_proxyprotocol::TestGetV2::test_unsupported_cmd",
        "test_proxyprotocol::TestGetV2::test_unsupported_fam",
        "test_proxyprotocol::TestGetV2::test_unsupported_proto",
        "test_proxyprotocol::TestGetV2::test_wrong_proto_6shouldbe4",
    ),
    "a PROXY header for datagrams is refused; test_smtp_proxy": (
        *_cases("test_proxyprotocol::TestGetV2::test_INET4", ("2-", "2-fake_tlv")),
        *_cases("test_proxyprotocol::TestGetV2::test_INET6", ("2-", "2-fake_tlv")),
        *_cases("test_proxyprotocol::TestGetV2::test_UNIX", ("2-", "2-fake_tlv")),
        "test_proxyprotocol::TestGetV2::test_fallback_UNSPEC[0-2]",
    ),
    "parameters are kept as they came, in lower case too; dialogs/parameters-kept": (
        "test_handlers::TestDebugging::test_debugging",
        "test_handlers::TestDebugging::test_debugging_bytes",
        "test_handlers::TestDebugging::test_debugging_with_options",
    ),
    "a handler answers, and the session keeps what the client said": ("test_handlers::TestHooks::test_hook_MAIL",),
    "ways of aiosmtpd that were given up before this project began": (
        "test_handlers::TestHooks::test_hook_EHLO_deprecated",
        "test_handlers::TestDeprecation::test_process_message",
        "test_handlers::TestDeprecation::test_process_message_async",
        "test_handlers::TestDeprecation::test_ehlo_hook",
        "test_handlers::TestDeprecation::test_rset_hook",
    ),
}
