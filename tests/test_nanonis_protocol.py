"""The wire of the Nanonis controller: bytes of the vendor's document, every type and command there and back, and what is no frame."""

from __future__ import annotations

import re
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.codec import Malformed
from probegym.hardware_bridge.instruments.nanonis import commands, protocol
from probegym.hardware_bridge.instruments.nanonis.protocol import HEADER, ControllerError, Field


def framed(name: str, numbers: str) -> bytes:
    return name.encode().ljust(32, b"\0") + bytes.fromhex(numbers)


# ---- the worked examples of the vendor's document ----

REQUESTS = [
    ("FolMe.XYPosSet", {"x": 1e-8, "y": 1.5e-8, "wait": 1}, "00000014 0001 0000 3E45798EE2308C3A 3E501B2B29A4692B 00000001"),
    ("FolMe.XYPosGet", {"wait": 1}, "00000004 0001 0000 00000001"),
    ("Bias.Set", {"bias": 0.5}, "00000004 0001 0000 3f000000"),
    ("Bias.Get", {}, "00000000 0001 0000"),
]
RESPONSES = [
    ("FolMe.XYPosSet", {}, "00000008 00000000 00000000 00000000"),
    ("FolMe.XYPosGet", {"x": 5e-9, "y": -5e-9}, "00000018 00000000 3E35798EE2308C3A BE35798EE2308C3A 00000000 00000000"),
    ("Bias.Set", {}, "00000008 00000000 00000000 00000000"),
    ("Bias.Get", {"bias": 0.5}, "0000000c 00000000 3f000000 00000000 00000000"),
]


@pytest.mark.parametrize(("name", "arguments", "numbers"), REQUESTS)
def test_requests_are_those_of_the_document(name, arguments, numbers):
    raw = framed(name, numbers)
    assert commands.request(name, **arguments) == raw
    told, size, reply = protocol.unpack_request(raw[:HEADER])
    assert (told, size, reply) == (name, len(raw) - HEADER, True)
    assert commands.arguments(name, raw[HEADER:]) == arguments


@pytest.mark.parametrize(("name", "values", "numbers"), RESPONSES)
def test_responses_are_those_of_the_document(name, values, numbers):
    raw = framed(name, numbers)
    assert commands.response(name, **values) == raw
    assert protocol.unpack_response(raw[:HEADER], name) == len(raw) - HEADER
    assert commands.returns(name, raw[HEADER:]) == values


def test_a_refusal_is_that_of_the_document():
    text = "Bias value out of range"
    raw = framed("Bias.Set", "0000001f 00000000 00000001 00000017") + text.encode()
    assert commands.refusal("Bias.Set", text) == raw
    with pytest.raises(ControllerError, match=text) as caught:
        commands.returns("Bias.Set", raw[HEADER:])
    assert caught.value.text == text


# ---- types, byte by byte ----


@pytest.mark.parametrize(
    ("kind", "value", "numbers"),
    [
        ("H", 65534, "fffe"), ("h", -2, "fffe"), ("I", 2**32 - 2, "fffffffe"), ("i", -2, "fffffffe"), ("f", -0.5, "bf000000"), ("d", 1.0, "3ff0000000000000"),
        ("str", "Z (m)", "00000005 5a20286d29"), ("str", "", "00000000"), ("str", "µ", "00000001 b5"),
        ("i[]", [0, -1], "00000002 00000000 ffffffff"), ("f[]", [0.5], "00000001 3f000000"), ("d[]", [1.0], "00000001 3ff0000000000000"),
        ("str[]", ("a", "", "bc"), "0000000f 00000003 00000001 61 00000000 00000002 6263"), ("str[]", (), "00000000 00000000"),
        ("f[][]", [[0.0, 0.5, -0.5], [1.0, 2.0, -2.0]], "00000002 00000003 00000000 3f000000 bf000000 3f800000 40000000 c0000000"),
    ],
)  # fmt: skip
def test_each_type_has_its_bytes(kind, value, numbers):
    fields = (Field("x", kind), Field("last", "H"))
    raw = bytes.fromhex(numbers) + b"\x00\x07"
    assert protocol.encode(fields, {"x": value, "last": 7}) == raw
    read, rest = protocol.decode(fields, raw + b"more")
    assert np.array_equal(read["x"], value) and read["last"] == 7 and rest == b"more"


SINGLE = st.floats(-(2.0**100), 2.0**100, width=32)
VALUES = {
    "H": st.integers(0, 2**16 - 1), "h": st.integers(-(2**15), 2**15 - 1), "I": st.integers(0, 2**32 - 1), "i": st.integers(-(2**31), 2**31 - 1),
    "f": SINGLE, "d": st.floats(allow_nan=False, allow_infinity=False), "str": st.text(st.characters(max_codepoint=255), max_size=50),
    "str[]": st.lists(st.text(st.characters(max_codepoint=255), max_size=20), max_size=5).map(tuple), "i[]": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=6),
    "f[]": st.lists(SINGLE, max_size=6), "f[][]": st.lists(st.lists(SINGLE, min_size=2, max_size=2), min_size=1, max_size=4),
}  # fmt: skip


def drawn(data, fields):
    return {field.name: data.draw(VALUES[field.kind]) for field in fields}


def same(one, other):
    return set(one) == set(other) and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", commands.COMMANDS)
@settings(max_examples=8, derandomize=True, deadline=None)
@given(data=st.data())
def test_every_command_comes_back_as_it_was_sent(name, data):
    call = commands.COMMANDS[name]
    asked, told = drawn(data, call.takes), drawn(data, call.gives)
    raw, answer = commands.request(name, **asked), commands.response(name, **told)
    assert protocol.unpack_request(raw[:HEADER]) == (name, len(raw) - HEADER, True)
    got = commands.arguments(name, raw[HEADER:])
    assert commands.request(name, **got) == raw and same(got, asked | {field.name: got[field.name] for field in call.takes if field.kind == "f"})
    assert protocol.unpack_response(answer[:HEADER], name) == len(answer) - HEADER
    assert same(commands.returns(name, answer[HEADER:]), told)
    with pytest.raises(ControllerError, match="busy"):
        commands.returns(name, commands.refusal(name, "busy")[HEADER:])


@pytest.mark.parametrize("number", [5e-9, 1.2e-9, 0.1, -2.5, 25e-12, 1e-11, 0.0])
def test_a_number_of_four_bytes_arrives_as_the_decimal_that_was_meant(number):
    assert commands.arguments("Bias.Set", commands.request("Bias.Set", bias=number)[HEADER:]) == {"bias": number}


# ---- what is no frame ----


@pytest.mark.parametrize("name", ["FolMe.XYPosGet", "Scan.FrameDataGrab", "Signals.NamesGet", "Scan.BufferGet", "Bias.Set"])
def test_an_answer_of_another_length_is_never_taken_for_values(name):
    told = {"x": 1.0, "y": 2.0, "name": "Z (m)", "data": np.ones((3, 2)), "direction": 1, "names": ("a", "bc"), "channels": [0, 14], "pixels": 3, "lines": 2}
    body = commands.response(name, **{field.name: told[field.name] for field in commands.COMMANDS[name].gives})[HEADER:]
    for wrong in [*(body[:cut] for cut in range(len(body))), body + b"\0", body + bytes(4), bytes(4) + body, body + body]:
        with pytest.raises(Malformed):
            commands.returns(name, wrong)


def test_a_flipped_bit_in_a_count_is_seen():
    whole = commands.response("Scan.FrameDataGrab", name="Z", data=np.ones((3, 4)), direction=1)[HEADER:]
    for at in (0, 5, 9):  # length of the name, rows, columns
        for bit in range(32):
            body = bytearray(whole)
            body[at + bit // 8] ^= 1 << bit % 8
            with pytest.raises(Malformed):
                commands.returns("Scan.FrameDataGrab", bytes(body))


def test_a_flipped_bit_in_a_header_is_seen_or_changes_only_the_length():
    for bit in range(8 * HEADER):
        raw = bytearray(commands.response("Bias.Get", bias=0.5)[:HEADER])
        raw[bit // 8] ^= 1 << bit % 8
        try:
            assert protocol.unpack_response(bytes(raw), "Bias.Get") != 12 and 32 <= bit // 8 < 36
        except Malformed:
            continue


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (framed("Bias.Get", "7fffffff 00000000"), "announces 2147483647"), (framed("Bias.Get", "ffffffff 00000000"), "announces -1"),
        (framed("Bias.Set", "0000000c 00000000"), "Bias.Get was asked, Bias.Set answered"), (framed("Bias.Get", "0000000c 00000001"), "ends with 0x1"),
        (bytes(40), "no command's name"), (framed("Bias\0Get", "0000000c 00000000"), "no command's name"), (framed("Bias.Get", "0000000c"), "40 bytes"),
    ],
)  # fmt: skip
def test_headers_of_answers_that_cannot_be(header, why):
    with pytest.raises(Malformed, match=re.escape(why)):
        protocol.unpack_response(header, "Bias.Get")


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (framed("Bias.Get", "00000000 0002 0000"), "2 answers"), (framed("Bias.Get", "00000000 0001 0001"), "ends its header with 1"),
        (framed("Bias.Get", "00010001 0001 0000"), "announces 65537"), (framed("Bias.Get", "80000000 0001 0000"), "announces -"),
    ],
)  # fmt: skip
def test_headers_of_requests_that_cannot_be(header, why):
    with pytest.raises(Malformed, match=why):
        protocol.unpack_request(header)


def test_arguments_of_another_length_are_no_request():
    body = commands.request("Scan.BufferSet", channels=[0, 14], pixels=64, lines=64)[HEADER:]
    for wrong in (body[:-1], body + b"\0", b"\xff" + body[1:], struct.pack(">i", 2**31 - 1) + body[4:]):
        with pytest.raises(Malformed):
            commands.arguments("Scan.BufferSet", wrong)


def test_texts_take_as_many_bytes_as_is_said():
    body = commands.response("Signals.NamesGet", names=("a", "bc"))[HEADER:]
    for size in (0, 3, 10, 12):
        with pytest.raises(Malformed, match="announced were"):
            commands.returns("Signals.NamesGet", struct.pack(">i", size) + body[4:])


@pytest.mark.parametrize("body", ["7fffffff 7fffffff", "7fffffff 00000000", "00000000 7fffffff", "ffffffff 00000001", "00010000 00010000"])
def test_an_image_of_any_announced_size_takes_no_memory(body):
    with pytest.raises(Malformed):
        commands.returns("Scan.FrameDataGrab", bytes(4) + bytes.fromhex(body) + bytes(12))


def test_an_error_may_come_without_values_but_values_never_without_an_error_field():
    early = struct.pack(">Ii", 1, 4) + b"busy"
    for name in ("FolMe.XYPosGet", "Scan.FrameDataGrab", "Signals.NamesGet"):
        with pytest.raises(ControllerError, match="busy"):
            commands.returns(name, early)
    with pytest.raises(ControllerError, match="error 7 without a text"):
        commands.returns("Bias.Set", struct.pack(">Ii", 7, 0))
    with pytest.raises(ControllerError, match="odd"):  # as the vendor's client has it, a text alone is an error
        commands.returns("Bias.Set", struct.pack(">Ii", 0, 3) + b"odd")
    with pytest.raises(Malformed):
        commands.returns("Bias.Get", struct.pack(">f", 0.5))


# ---- what is not sent ----


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("Bias.Set", {"bias": np.nan}, "Bias.Set, bias: nan is not finite"), ("FolMe.XYPosSet", {"x": np.inf, "y": 0.0, "wait": 1}, "x: inf is not finite"),
        ("Bias.Set", {}, "lacking or unknown: bias"), ("Bias.Get", {"bias": 1.0}, "lacking or unknown: bias"), ("Bias.Set", {"bias": 1e39}, "does not fit its type f"),
        ("ZCtrl.OnOffSet", {"on": -1}, "on does not fit its type I"), ("SafeTip.OnOffSet", {"status": 70000}, "status does not fit its type H"),
        ("ZCtrl.OnOffSet", {"on": "1"}, "does not fit"), ("Scan.BufferSet", {"channels": [[0]], "pixels": 1, "lines": 1}, "channels does not fit"),
        ("Bias.Sett", {}, "none of the commands"),
    ],
)  # fmt: skip
def test_what_is_no_command_is_not_sent(name, arguments, why):
    with pytest.raises(ProbeGymError, match=re.escape(why)):
        commands.request(name, **arguments)


def test_texts_that_clients_misread_are_not_sent():
    with pytest.raises(ProbeGymError, match="250 are allowed"):
        commands.response("Signals.NamesGet", names=("x" * 251,))
    assert len(commands.refusal("Bias.Set", "y" * 1000)) == HEADER + 8 + 250


# ---- against the vendor's own client ----

THEIRS = {"str": ["i", "*-c"], "str[]": ["i", "i", "*+c"], "i[]": ["i", "*i"], "f[]": ["i", "*f"], "f[][]": ["i", "i", "2f"]}


@pytest.mark.parametrize("name", [name for name in commands.COMMANDS if name != "Util.VersionGet"])  # there the client is at odds with its own document
def test_types_are_those_of_the_vendors_client(name):
    vendor = pytest.importorskip("nanonis_spm")
    client, seen = vendor.Nanonis(None), []
    client.quickSend = lambda *told: seen.append(told)
    method = getattr(client, name.replace(".", "_"))
    call = commands.COMMANDS[name]
    method(*(0 for _ in call.takes))
    told_name, _, takes, gives = seen[0]
    assert told_name == name
    assert takes == [f"+*{field.kind[0]}" if field.kind.endswith("[]") else "+*c" if field.kind == "str" else field.kind for field in call.takes]
    wanted = [kind for field in call.gives for kind in THEIRS.get(field.kind, [field.kind])]
    assert [kind.lower() if kind == "I" and at + 1 < len(gives) and gives[at + 1] == "*-c" else kind for at, kind in enumerate(gives)] == wanted
