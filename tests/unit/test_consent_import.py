"""Importing consent files: the whole file or nothing, every row accounted for, nothing lifted by a list."""

import csv
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from filter import consent_store
from filter.address import SubjectKeyer
from filter.consent import ConsentState, Scope, UnknownBecause
from filter.consent_import import FORMATS, import_file, parse_event
from filter.consent_store import ConsentStore
from filter.errors import ConsentDataError, InputError
from filter.labels import Channel

KEYER = SubjectKeyer(b"k" * 32)
SCOPE = Scope("email", "bank", "bank", "offers")
NOW = 1_790_000_000_000
EARLIER = "2026-05-01T10:00:00Z"
GRANT = {
    "kind": "grant",
    "channel": "email",
    "controller": "bank",
    "brand": "bank",
    "topic": "offers",
    "source": "bank.example/join",
    "method": "web form",
    "affirmative": "true",
    "conditional": "false",
    "wording_id": "join-7",
    "wording_sha256": "ab" * 32,
    "grade": "A",
    "event_time": EARLIER,
}
OBJECT = {"kind": "object", "channel": "email", "controller": "bank", "event_time": EARLIER}


@pytest.fixture
def store(tmp_path):
    """An empty index open for writing."""
    with ConsentStore(tmp_path / "index", KEYER, readonly=False) as opened:
        yield opened


@pytest.fixture
def save(tmp_path):
    """Write rows (dictionaries) as CSV or, by the name, JSON lines."""

    def write(rows, name="records.csv"):
        path = tmp_path / name
        if path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            return path
        columns = list(dict.fromkeys(column for row in rows for column in row))
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
        return path

    return write


def person(name, terms=GRANT, **changes):
    """A row about one person."""
    return {"address": f"{name}@shop.example", **terms, **changes}


def state(store, name, scope=SCOPE):
    """The state of one person."""
    return store.lookup(f"{name}@shop.example", scope, NOW).state


@pytest.mark.parametrize("name", ["records.csv", "records.jsonl"])
def test_rows_become_events(store, save, name):
    """CSV and JSON lines give the same events, and the report says what came in."""
    path = save(
        [person("jo", transaction_ref="ORD-7"), person("al", OBJECT), person("cy", bundled_with="age;prize")], name
    )
    report = import_file(store, path, now=NOW, batch="spring")
    assert (report.imported, report.lines, report.accepted, report.duplicates, report.rejected) == (True, 3, 3, 0, 0)
    assert (report.kinds, report.not_evidence) == ({"grant": 2, "object": 1}, {"bundled": 1})
    assert [state(store, one) for one in ("jo", "al", "cy")] == [
        ConsentState.CONSENT,
        ConsentState.OBJECTED,
        ConsentState.UNKNOWN,
    ]
    relied_on = store.lookup("jo@shop.example", SCOPE, NOW).relied_on
    assert (relied_on.event_time, relied_on.received_at, relied_on.transaction_ref) == (1_777_629_600_000, NOW, "ORD-7")
    assert relied_on.capture.batch == "spring"
    assert store.stats().batches[0]["lines"] == 3


def test_json_values_may_be_typed(store, save):
    """In JSON, true, null, numbers and lists mean what their text means in CSV."""
    row = person(
        "jo", affirmative=True, conditional=False, topics=["loans", "cards"], event_time=1_777_629_600_000, charity=None
    )
    import_file(store, save([row], "records.jsonl"), now=NOW)
    assert state(store, "jo", SCOPE._replace(topic="cards")) is ConsentState.CONSENT


def test_one_bad_row_stops_the_import(store, save):
    """Nothing is half-imported: faults are listed with place, value and what is allowed; the index is as before."""
    path = save(
        [person("jo"), person("al", kind="maybe"), person("b d"), person("cy", event_time="yesterday", grade="Z")]
    )
    report = import_file(store, path, now=NOW)
    assert (report.imported, report.lines, report.accepted, report.rejected) == (False, 4, 1, 3)
    told = [(one.place, one.value) for one in report.problems]
    assert told == [
        ("records.csv:3: kind", "maybe"),
        ("records.csv:4: address", ""),
        ("records.csv:5: grade", "Z"),
    ]
    assert all(one.allowed for one in report.problems)
    assert store.stats().records == 0


def test_dates_in_the_future_are_reported_as_no_evidence(store, save):
    """A basis dated after it arrived is kept, counts for nothing, and the report says so."""
    report = import_file(store, save([person("jo", event_time="2085-01-01T00:00:00Z"), person("al")]), now=NOW)
    assert (report.accepted, report.not_evidence) == (2, {"future_time": 1})
    in_2085 = 3_629_000_000_000
    assert [store.lookup("jo@shop.example", SCOPE, at).state for at in (NOW, in_2085)] == [ConsentState.UNKNOWN] * 2


def test_bad_rows_can_be_set_aside(store, save, tmp_path):
    """With a file for rejects the good rows are imported and the bad ones kept, readable by the owner only."""
    rejects = tmp_path / "rejects.csv"
    path = save([person("jo"), person("al", affirmative="perhaps"), person("cy", event_time="2026-05-01")])
    report = import_file(store, path, now=NOW, rejects=rejects)
    assert (report.imported, report.accepted, report.rejected, report.rejects) == (True, 1, 2, rejects)
    lines = path.read_bytes().splitlines(keepends=True)
    assert rejects.read_bytes().splitlines(keepends=True) == [lines[0], *lines[2:]]
    assert rejects.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_rejects_can_be_corrected_and_imported(store, save, tmp_path, suffix):
    """The file of rejected lines is an import file of its own: corrected, it goes in."""
    rejects = tmp_path / f"rejects{suffix}"
    path = save([person("jo"), person("al", grade="?"), person("cy", grade="?")], f"records{suffix}")
    assert import_file(store, path, now=NOW, rejects=rejects).rejected == 2
    assert "\ufeff" not in rejects.read_text()
    rejects.write_text(rejects.read_text().replace("?", "A"))
    report = import_file(store, rejects, now=NOW)
    assert (report.imported, report.accepted) == (True, 2)


def test_stray_quote_swallows_no_row(store, tmp_path):
    """A quote without its end rejects its own line; the objections after it count, and the line is kept."""
    rejects = tmp_path / "rejects.csv"
    path = tmp_path / "records.csv"
    lines = ["address,kind,source\n", *(f"p{number}@shop.example,object,web\n" for number in range(6))]
    lines[3] = lines[3].replace("web", '"web')
    path.write_text("".join(lines))
    report = import_file(store, path, now=NOW, rejects=rejects)
    assert (report.lines, report.accepted, report.rejected) == (6, 5, 1)
    assert report.problems[0].place == "records.csv:4"
    assert rejects.read_text() == lines[0] + lines[3]
    states = [state(store, f"p{number}") for number in range(6)]
    assert [number for number in range(6) if states[number] is not ConsentState.OBJECTED] == [2]


def test_two_stray_quotes_swallow_no_row(store, tmp_path):
    """Two stray quotes that could be read as one long field do not make one of the rows between them."""
    path = tmp_path / "records.csv"
    path.write_text('address,kind,source\na@x.example,object,"web\nb@x.example,object,web\nc@x.example,object,web"\n')
    report = import_file(store, path, now=NOW, rejects=tmp_path / "rejects.csv")
    assert (report.lines, report.accepted, report.rejected) == (3, 2, 1)
    answers = [store.lookup(f"{name}@x.example", SCOPE, NOW) for name in "abc"]
    assert [answer.state is ConsentState.OBJECTED for answer in answers] == [False, True, True]


@pytest.mark.parametrize("kind", ["file", "link", "dangling link", "import file"])
def test_rejects_overwrite_nothing(store, save, tmp_path, kind):
    """A file for rejects that exists, be it the import file itself, is refused before anything is read or written."""
    path = save([person("jo"), person("al", grade="Z")])
    rejects, other = tmp_path / "rejects.csv", tmp_path / "precious"
    if kind == "import file":
        rejects = path
    elif kind == "file":
        rejects.write_text("mine")
    else:
        rejects.symlink_to(other)
        if kind == "link":
            other.write_text("mine")
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir() if one.is_file()}
    with pytest.raises(InputError, match="exists already"):
        import_file(store, path, now=NOW, rejects=rejects)
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir() if one.is_file()} == before
    assert store.stats().records == 0


def test_rejects_that_cannot_be_written_stop_the_import(store, save, tmp_path):
    """Without a place for its rejected lines an import writes nothing and says why."""
    path = save([person("jo"), person("al", grade="Z")])
    with pytest.raises(InputError, match="No such file"):
        import_file(store, path, now=NOW, rejects=tmp_path / "none" / "rejects.csv")
    assert store.stats().records == 0


def test_failed_import_leaves_no_rejects(store, save, tmp_path, monkeypatch):
    """When the index cannot be written there is no file of rejects either, so the import can be run again as it was."""
    path, rejects = save([person("jo"), person("al", grade="Z")]), tmp_path / "rejects.csv"
    with monkeypatch.context() as patch:
        patch.setattr(ConsentStore, "load", _no_space)
        with pytest.raises(OSError, match="No space"):
            import_file(store, path, now=NOW, rejects=rejects)
    assert import_file(store, path, now=NOW, rejects=rejects).imported


def _no_space(*_):
    raise OSError(28, "No space left on device")


def test_problems_are_listed_up_to_a_limit_and_all_counted(store, save):
    """A file with very many faults lists the first hundred."""
    report = import_file(store, save([person(f"p{number}", grade="Z") for number in range(150)]), now=NOW)
    assert (len(report.problems), report.problem_total, report.rejected) == (100, 150, 150)


def test_opt_out_is_taken_whatever_else_is_wrong(store, save):
    """Bad values are left out of an opt-out, which makes it wider or undated, and it counts."""
    row = person("jo", OBJECT, channel="pigeon", event_time="soon", bundled_with="x", grade="Z", source_seq="first")
    report = import_file(store, save([row]), now=NOW)
    assert (report.imported, report.accepted, report.repaired) == (True, 1, 1)
    assert state(store, "jo") is ConsentState.OBJECTED


def test_same_file_again_changes_nothing(store, save):
    """Every row of a repeated import is a duplicate."""
    path = save([person("jo"), person("al", OBJECT), person("cy", OBJECT, event_time="")])
    import_file(store, path, now=NOW)
    before = list(store.export())
    report = import_file(store, path, now=NOW + 5)
    assert (report.accepted, report.duplicates, report.lines) == (0, 3, 3)
    assert list(store.export()) == before


def test_row_twice_in_a_file_is_a_duplicate(store, save):
    """Counts in are counts out within one file too."""
    report = import_file(store, save([person("jo"), person("JO"), person("al")]), now=NOW)
    assert (report.accepted, report.duplicates, report.rejected, report.lines) == (2, 1, 0, 3)


def test_absence_lifts_nothing(store, save):
    """Somebody missing from a later suppression list is still suppressed."""
    import_file(store, save([person("jo", OBJECT), person("al", OBJECT)], "old.csv"), now=NOW)
    import_file(store, save([person("al", OBJECT)], "new.csv"), now=NOW + 1)
    assert state(store, "jo") is ConsentState.OBJECTED


def test_imported_grant_lifts_nothing_but_a_recorded_one_does(store, save):
    """A list never ends an objection, even with a later and perfect grant; the person's own later act does."""
    import_file(store, save([person("jo", OBJECT)], "objections.csv"), now=NOW - 9)
    import_file(store, save([person("jo", event_time="2026-06-01T10:00:00Z")], "grants.csv"), now=NOW - 8)
    assert state(store, "jo") is ConsentState.OBJECTED
    address, channel, event = parse_event(person("jo", event_time="2026-06-01T10:00:00Z"), NOW - 7)
    store.record(address, channel, event)
    assert state(store, "jo") is ConsentState.CONSENT


def test_undated_opt_out_of_a_newer_list_counts_again(store, save):
    """A list without times that still names the person after a new consent puts the opt-out back in force."""
    undated = person("jo", OBJECT, event_time="")
    import_file(store, save([undated], "one.csv"), now=1_777_000_000_000)
    address, channel, event = parse_event(person("jo"), 1_777_629_600_000)
    store.record(address, channel, event)
    assert state(store, "jo") is ConsentState.CONSENT
    import_file(store, save([undated, person("al", OBJECT)], "two.csv"), now=NOW)
    assert state(store, "jo") is ConsentState.OBJECTED


def test_defaults_fill_blank_columns(store, save):
    """What a file does not say can be given for all its rows."""
    rows = [{"address": "jo@shop.example", "event_time": EARLIER}]
    import_file(store, save(rows), now=NOW, defaults={one: GRANT[one] for one in GRANT if one != "event_time"})
    assert state(store, "jo") is ConsentState.CONSENT


def test_quotes_bom_and_line_ends_are_read(store, tmp_path):
    """Byte-order mark, CRLF, quoted names, commas and quotes, blank lines: line numbers stay right."""
    path = tmp_path / "records.csv"
    path.write_bytes(
        b'\xef\xbb\xbf"address","kind",source\r\njo@shop.example,object,"a, ""b"" c"\r\n\r\n'
        b"al@shop.example,object,x\r\nbad,object,\r\n"
    )
    report = import_file(store, path, now=NOW)
    assert (report.lines, report.accepted, report.rejected) == (3, 2, 1)
    assert report.problems[0].place == "records.csv:5: address"


def test_byte_order_mark_of_json_lines(store, tmp_path):
    """A byte-order mark before the first object is no part of it."""
    path = tmp_path / "records.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(person("jo")).encode() + b"\n")
    assert import_file(store, path, now=NOW).accepted == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no header"),
        (b'"address,kind\nobject\n', "no header line: unexpected end"),
        (b"kind\nobject\n", "misses column address"),
        (b"address,kind,adress\n", "unknown column adress"),
        (b"address,kind,kind\n", "repeats column kind"),
    ],
)
def test_wrong_header_is_refused(store, tmp_path, content, message):
    """A file that is not in the format is refused as a whole, by name of what is wrong."""
    path = tmp_path / "records.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        import_file(store, path, now=NOW)


@pytest.mark.parametrize(
    "line",
    [
        "jo@shop.example,object,extra",
        "jo@shop.example",
        '"jo@shop.example,object',
        "jo\udcff@shop.example,object",
    ],
)
def test_malformed_line_is_rejected_with_its_number(store, tmp_path, line):
    """Wrong number of fields, an open quote or bytes that are no UTF-8 reject the line, not the run."""
    path = tmp_path / "records.csv"
    path.write_bytes(f"address,kind\nal@shop.example,object\n{line}\n".encode("utf-8", "surrogateescape"))
    report = import_file(store, path, now=NOW)
    assert (report.lines, report.accepted, report.rejected) == (2, 1, 1)
    assert report.problems[0].place.startswith("records.csv:3")


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"address": "jo@shop.example", "kind": "object", "adress": 1}',
        '{"kind": "object"}',
        '{"address": "jo@shop.example", "kind": "object", "topics": %s}' % ("[" * 900 + "]" * 900),
        '{"address": "jo@shop.example", "kind": "object", "topics": %s}' % ("[" * 99_999 + "]" * 99_999),
        '{"address": "jo@shop.example", "kind": "object", "topics": [["a"]]}',
        '{"address": "jo@shop.example", "kind": "object", "topics": [{}]}',
        '{"address": "jo@shop.example", "kind": "object", "source": {"a": 1}}',
    ],
    ids=lambda line: line[-20:],
)
def test_malformed_json_line_is_rejected(store, tmp_path, line):
    """What is no object with known keys and an address is rejected."""
    path = tmp_path / "records.jsonl"
    path.write_text(f"{line}\n")
    assert (import_file(store, path, now=NOW).rejected, store.stats().records) == (1, 0)


@pytest.mark.parametrize(("kind", "taken"), [("object", True), ("grant", False), ("block", True)])
def test_octets_that_are_no_text(store, tmp_path, kind, taken):
    """Bytes that are no UTF-8 in any column reject a grant; an opt-out or block is taken without that value."""
    path = tmp_path / "records.csv"
    path.write_bytes(
        b"address,kind,channel,source,evidence_ref,brand\njo@shop.example,%s,email,\xff,\xfe,\xfd\n" % kind.encode()
    )
    report = import_file(store, path, now=NOW)
    assert (report.imported, report.repaired) == (taken, int(taken))
    assert all(problem.value.isprintable() for problem in report.problems)


def test_too_many_different_terms_are_refused(store, save, monkeypatch):
    """Per-person values in a shared column would fill the memory of every reader; the error names the column."""
    monkeypatch.setattr("filter.consent_rows.MAX_TERMS", 10)
    with pytest.raises(InputError, match=r"'source'.*evidence_ref"):
        import_file(store, save([person(f"p{n}", source=f"form {n}") for n in range(20)]), now=NOW)


def test_arguments_are_checked(store, save):
    """An unknown format or default is an error that lists what is allowed."""
    path = save([person("jo")])
    with pytest.raises(InputError, match="sparkpost"):
        import_file(store, path, now=NOW, file_format="xml")
    with pytest.raises(InputError, match="default for colour"):
        import_file(store, path, now=NOW, defaults={"colour": "red"})


def test_progress_is_reported(store, save, monkeypatch):
    """Rows and octets grow to those of the whole file."""
    monkeypatch.setattr("filter.consent_import.PROGRESS_EVERY", 2)
    seen = []
    path = save([person(f"p{n}") for n in range(5)])
    import_file(store, path, now=NOW, progress=lambda lines, octets: seen.append((lines, octets)))
    assert [lines for lines, _ in seen] == [2, 4, 5]
    assert seen[-1][1] == path.stat().st_size


EXPORTS = {
    "ses": (
        "EmailAddress,LastUpdateTime,Reason\n{},1777629600,COMPLAINT\n{},1777629600.5,BOUNCE\n",
        "EmailAddress,LastUpdateTime,Reason\n{},1,DELIVERED\n",
    ),
    "sendgrid": ("email,created\n{},1777629600\n", None),
    "mailgun": ('address,tags,created_at\n{},*,"Fri, 01 May 2026 10:00:00 GMT"\n{},news,\n', None),
    "postmark": (
        """EmailAddress,SuppressionReason,Origin,CreatedAt
{},SpamComplaint,Recipient,2026-05-01T10:00:00Z
{},HardBounce,Recipient,x
{},ManualSuppression,Customer,
""",
        "EmailAddress,SuppressionReason\n{},Other\n",
    ),
    "sparkpost": (
        """recipient,type,source,created
{},non_transactional,List Unsubscribe,2026-05-01T10:00:00+00:00
{},transactional,Bounce Rule,
""",
        "recipient,type\n{},none\n",
    ),
    "mailchimp": (
        "email_address,status,last_changed\n{},unsubscribed,2026-05-01 10:00:00\n{},cleaned,\n",
        "email_address,status\n{},vip\n",
    ),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_exports_of_other_systems_suppress(store, tmp_path, name):
    """Every row of a suppression export is an opt-out or a block for all brands and topics."""
    text = EXPORTS[name][0]
    people = [f"p{number}@shop.example" for number in range(text.count("{}"))]
    path = tmp_path / "export.csv"
    path.write_text(text.format(*people))
    report = import_file(store, path, now=NOW, file_format=name)
    assert (report.imported, report.accepted) == (True, len(people))
    answers = [store.lookup(one, SCOPE, NOW) for one in people]
    assert all(answer.blocked or answer.state is ConsentState.OBJECTED for answer in answers)
    assert answers[0].relied_on.event_time == 1_777_629_600_000
    assert answers[0].relied_on.capture.source == name


@pytest.mark.parametrize("name", [name for name, (_, unknown) in EXPORTS.items() if unknown])
def test_unknown_value_of_another_system_is_rejected(store, tmp_path, name):
    """A status that the table does not know stops the import."""
    path = tmp_path / "export.csv"
    path.write_text(EXPORTS[name][1].format("jo@shop.example"))
    assert (import_file(store, path, now=NOW, file_format=name).rejected, store.stats().records) == (1, 0)


@pytest.mark.parametrize("status", ["subscribed", "pending", "transactional", "archived"])
def test_list_status_is_no_consent(store, tmp_path, status):
    """Being on somebody's list proves nothing: there is no wording, so the state is unknown because of it."""
    path = tmp_path / "export.csv"
    path.write_text(f"email_address,status\njo@shop.example,{status}\n")
    defaults = {"controller": "bank", "brand": "bank", "topic": "offers"}
    import_file(store, path, now=NOW, file_format="mailchimp", defaults=defaults)
    answer = store.lookup("jo@shop.example", SCOPE, NOW)
    assert answer.state is ConsentState.UNKNOWN
    assert answer.reasons[0] is UnknownBecause.INVALID


def test_tag_of_another_system_can_be_mapped_to_a_topic(store, tmp_path):
    """An opt-out from a list we know concerns its topic; from one we do not know, all topics."""
    path = tmp_path / "export.csv"
    path.write_text("address,tags\njo@shop.example,loans-list\nal@shop.example,other\n")
    import_file(store, path, now=NOW, file_format="mailgun", topics={"loans-list": "loans"})
    assert state(store, "jo", SCOPE._replace(topic="loans")) is ConsentState.OBJECTED
    assert state(store, "jo") is ConsentState.UNKNOWN
    assert state(store, "al") is ConsentState.OBJECTED


def test_formats_are_listed():
    """The command line offers exactly what the importer takes."""
    assert set(FORMATS) == {"csv", "jsonl", *EXPORTS}


def test_single_event_needs_good_values():
    """An event given by hand is refused with place, value and what is allowed."""
    with pytest.raises(ConsentDataError, match="grade: 'Z'; allowed is A, B, C or D"):
        parse_event(person("jo", grade="Z"), NOW)
    with pytest.raises(ConsentDataError, match="no such column: colour"):
        parse_event(person("jo", colour="red"), NOW)
    assert parse_event({"address": "+44 7700 900123", "kind": "object"}, NOW)[1] is Channel.SMS


rows = st.lists(
    st.builds(
        person,
        st.sampled_from(["jo", "al", "jo+x"]),
        st.sampled_from([GRANT, OBJECT]),
        event_time=st.sampled_from([EARLIER, "2026-06-01T10:00:00Z", ""]),
        id=st.sampled_from(["", "e1", "e2"]),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows, st.randoms(), st.booleans())
def test_order_of_rows_and_files_changes_no_state(tmp_path_factory, save, listed, chance, rebuild):
    """Through the real importer: rows in another order, split over two files, give the same states; counts add up."""
    shuffled = listed.copy()
    chance.shuffle(shuffled)
    states = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(consent_store, "REBUILD_FROM", 1 if rebuild else 50_000)
        for files in ([listed], [shuffled[:2], shuffled[2:]]):
            with ConsentStore(tmp_path_factory.mktemp("index"), KEYER, readonly=False) as store:
                for rows_of_file in filter(None, files):
                    report = import_file(store, save(rows_of_file), now=NOW, batch="b1")
                    assert report.accepted + report.duplicates + report.rejected == report.lines == len(rows_of_file)
                states.append([state(store, name) for name in ("jo", "al", "jo+x", "jo+y")])
    assert states[0] == states[1]


lines_of_text = st.lists(
    st.sampled_from(
        [
            "jo@x.example,object,web",
            'jo@x.example,object,"web',
            '"al@x.example",object,"a, b"',
            "cy@x.example,grant",
            '"',
        ]
    )
    | st.text(st.sampled_from('",\r;a@ \ufeff\u2028\0') | st.characters(exclude_characters="\n"), max_size=12),
    max_size=8,
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines_of_text, st.sampled_from(["records.csv", "records.jsonl"]), st.sampled_from(["", "\n", "\r\n"]))
def test_every_line_of_any_text_is_accounted_for(store, tmp_path_factory, texts, name, end):
    """Whatever a file holds, each line that is not blank is accepted, a duplicate, or kept as a reject."""
    directory = tmp_path_factory.mktemp("any")
    lines = [text.encode("utf-8", "replace") for text in texts]
    head = [] if name.endswith("jsonl") else [b"address,kind,source"]
    (directory / name).write_bytes(b"\n".join([*head, *lines]) + end.encode())
    report = import_file(store, directory / name, now=NOW, rejects=directory / "rejects")
    assert report.accepted + report.duplicates + report.rejected == report.lines
    assert report.lines == sum(bool(line.strip()) for line in lines)
    kept = (directory / "rejects").read_bytes().split(b"\n") if report.rejected else []
    assert len(kept) == (report.rejected + len(head) + 1 if kept else 0)
    assert {one.strip() for one in kept} <= {one.strip() for one in [*lines, *head, b""]}
