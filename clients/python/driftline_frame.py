"""Driftline's wire frame, version 1, with Python's standard library only.

For devices that run Python: `encode` makes a frame of inferences, outcomes, health readings or
events, `decode` reads one, `join` puts several into the body of `POST /v1/frames`. The format is
described in `schemas/src/frame.rs`. Numbers are integers in the resolution that the bundle declares;
times are microseconds since the Unix epoch (or since boot, with `sent=("boot", µs)`).

A schema is what `driftline model show --format json` says under `frames`: `{"kind": 1..4, "fingerprint": number, "fields": [{"name", "ty"}, ...]}`, types being
`time`, `int32`, `int64`, `text` and `id`. Rows are columns in the order of the fields: lists of
equal length, `None` where a value is missing. Frames are written without compression.
"""
import struct
import zlib

ATTRIBUTES = ["device", "model", "version", "variant", "hardware", "firmware", "region", "site"]
LINKS = ["unknown", "ethernet", "wifi", "cellular", "lpwan", "satellite"]
ROLES = ["device", "probe"]
UNITS = [1, 1_000, 1_000_000]
SENT = [None, "clock", "boot"]
RAW_MAX = 16 << 20


class FrameError(ValueError):
    """The bytes are no frame of version 1, or are damaged."""


def varint(n):
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes(out) + bytes([n])


def signed(n, bits=64):
    n = (n + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)  # arithmetic wraps
    return varint(n << 1 if n >= 0 else -(n << 1) - 1)


def text(s):
    return varint(len(s.encode())) + s.encode()


def pack(values, width):
    held = sum(value << index * width for index, value in enumerate(values))
    return held.to_bytes((len(values) * width + 7) // 8, "little")


def unit_of(times):
    return next(u for u in (2, 1, 0) if all(t % UNITS[u] == 0 for t in times))


def encode_numbers(values, origin, bits):
    if len(set(values)) == 1:
        return 1, signed(values[0] - origin, bits)
    width = (max(values) - min(values)).bit_length()
    packed = signed(min(values) - origin, bits) + bytes([width]) + pack([v - min(values) for v in values], width)
    deltas = b"".join(signed(b - a, bits) for a, b in zip(values, values[1:]))
    deltas = signed(values[0] - origin, bits) + deltas
    return (2, packed) if len(packed) <= len(deltas) else (6, deltas)


def encode_column(ty, column, unit, origin):
    there = [value for value in column if value is not None]
    if not there:
        return 0, b""
    bitmap = b"" if len(there) == len(column) else pack([int(v is None) for v in column], 1)
    if ty == "text":
        entries = list(dict.fromkeys(there))
        width = (len(entries) - 1).bit_length()
        data = varint(len(entries)) + b"".join(map(text, entries)) + pack([entries.index(v) for v in there], width)
        coding = 7
    elif ty == "id":
        coding, data = 8, b"".join(v.to_bytes(16, "big") for v in there)
    elif ty == "time":
        coding, data = encode_numbers([v // UNITS[unit] for v in there], origin, 64)
    else:
        coding, data = encode_numbers(there, 0, 32 if ty == "int32" else 64)
    return coding | (0x10 if bitmap else 0), bitmap + data


def encode(schema, columns, boot, sequence, sent=None, **overrides):
    """One frame. `sent` is `None`, `("clock", µs)` or `("boot", µs)`; `overrides` are attributes
    that the gateway's registry does not know: those of `ATTRIBUTES`, `link`, `role`, `cadence_s`."""
    types = [field["ty"] for field in schema["fields"]]
    unit = unit_of([v for ty, c in zip(types, columns) if ty == "time" for v in c if v is not None])
    sent_unit = unit_of([sent[1]]) if sent else 0
    present = [name in overrides for name in ATTRIBUTES + ["link", "role", "cadence_s"]]
    flags = SENT.index(sent and sent[0]) | sent_unit << 2 | unit << 4
    body = struct.pack("<Q", boot) + varint(sequence)
    body += varint(flags | sum(bit << 6 + index for index, bit in enumerate(present)))
    body += signed(sent[1] // UNITS[sent_unit]) if sent else b""
    body += b"".join(text(overrides[name]) for name in ATTRIBUTES if name in overrides)
    body += bytes([LINKS.index(overrides["link"])]) if "link" in overrides else b""
    body += bytes([ROLES.index(overrides["role"])]) if "role" in overrides else b""
    body += varint(overrides["cadence_s"]) if "cadence_s" in overrides else b""
    origin = sent[1] // UNITS[unit] if sent else 0
    body += varint(len(columns[0]))
    if columns[0]:
        coded = [encode_column(ty, column, unit, origin) for ty, column in zip(types, columns)]
        body += bytes(coding for coding, _ in coded) + b"".join(data for _, data in coded)
    head = b"DL\x01" + bytes([schema["kind"]]) + struct.pack("<IB", schema["fingerprint"], 0)
    tail = varint(len(body)) + body
    return head + struct.pack("<I", zlib.crc32(head + tail)) + tail


def join(frames):
    """The body of a request that carries several frames."""
    return b"".join(varint(len(frame)) + frame for frame in frames)


class Cursor:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        if n > len(self.data) - self.at:
            raise FrameError(f"ends too early at byte {self.at}")
        self.at += n
        return self.data[self.at - n : self.at]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80 or shift > 63:
                return value

    def signed(self):
        n = self.varint()
        return n >> 1 if n & 1 == 0 else -(n >> 1) - 1

    def text(self):
        return self.take(self.varint()).decode()

    def bits(self, count, width):
        held = int.from_bytes(self.take((count * width + 7) // 8), "little")
        return [held >> index * width & (1 << width) - 1 for index in range(count)]


def lz4_block(data, length):
    cursor, out = Cursor(data), bytearray()

    def more(n):
        byte = 255 if n == 15 else 0
        while byte == 255:
            byte = cursor.take(1)[0]
            n += byte
        return n

    while cursor.at < len(data) and len(out) <= length:
        token = cursor.take(1)[0]
        out += cursor.take(more(token >> 4))
        if cursor.at == len(data):
            break
        offset, count = struct.unpack("<H", cursor.take(2))[0], more(token & 15) + 4
        if not 0 < offset <= len(out) or len(out) + count > length:
            raise FrameError("damaged block")
        for _ in range(count):
            out.append(out[-offset])
    return bytes(out)


def decode_numbers(cursor, coding, count, origin, bits):
    def wrap(n):
        return (n + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)

    first = origin + cursor.signed()
    if coding == 1:
        return [wrap(first)] * count
    if coding == 2:
        return [wrap(first + v) for v in cursor.bits(count, cursor.take(1)[0])]
    if coding == 5:
        return [wrap(first)] + [wrap(origin + cursor.signed()) for _ in range(count - 1)]
    if coding == 6:
        deltas = [cursor.signed() for _ in range(count - 1)]
    elif coding == 3:
        least = cursor.signed()
        deltas = [least + v for v in cursor.bits(count - 1, cursor.take(1)[0])]
    elif coding == 4:
        deltas, least = [cursor.signed()], cursor.signed()
        for curve in cursor.bits(count - 2, cursor.take(1)[0]):
            deltas.append(deltas[-1] + least + curve)
    else:
        raise FrameError(f"coding {coding} at byte {cursor.at}")
    values = [first]
    for delta in deltas:
        values.append(values[-1] + delta)
    return [wrap(value) for value in values]


def decode_column(cursor, ty, descriptor, rows, unit, origin):
    coding = descriptor & 15
    if coding == 0:
        return [None] * rows
    missing = cursor.bits(rows, 1) if descriptor & 0x10 else [0] * rows
    count = rows - sum(missing)
    if ty == "text":
        entries = [cursor.text() for _ in range(cursor.varint())]
        there = [entries[index] for index in cursor.bits(count, (len(entries) - 1).bit_length())]
    elif ty == "id":
        there = [int.from_bytes(cursor.take(16), "big") for _ in range(count)]
    elif ty == "time":
        there = [v * UNITS[unit] for v in decode_numbers(cursor, coding, count, origin, 64)]
    else:
        there = decode_numbers(cursor, coding, count, 0, 32 if ty == "int32" else 64)
    there = iter(there)
    return [None if absent else next(there) for absent in missing]


def decode(frame, schema):
    """The envelope of a frame (`boot`, `sequence`, `sent`, overrides) and its columns, or for a
    device's profile (kind 5) `{"version", "pane_start_us", "pane_length_us", "profile": bytes}`."""
    if frame[:3] != b"DL\x01" or len(frame) < 14 or frame[8] != 0:
        raise FrameError("not a frame of version 1")
    checksum, = struct.unpack("<I", frame[9:13])
    if zlib.crc32(frame[:9] + frame[13:]) != checksum:
        raise FrameError("the checksum is not that of the bytes")
    if struct.unpack("<I", frame[4:8])[0] != schema["fingerprint"]:
        raise FrameError("the frame was made with another schema")
    cursor = Cursor(frame[13:])
    length = cursor.varint()
    if length > RAW_MAX:
        raise FrameError("the body is too long")
    body = frame[13 + cursor.at :]
    cursor = Cursor(lz4_block(body, length) if frame[3] & 0x10 else body)
    if len(cursor.data) != length:
        raise FrameError("the body is not as long as is claimed")
    boot, = struct.unpack("<Q", cursor.take(8))
    envelope = {"boot": boot, "sequence": cursor.varint()}
    flags = cursor.varint()
    unit, present = flags >> 4 & 3, flags >> 6
    sent = cursor.signed() * UNITS[flags >> 2 & 3] if flags & 3 else 0
    envelope["sent"] = (SENT[flags & 3], sent) if flags & 3 else None
    for index, name in enumerate(ATTRIBUTES):
        if present >> index & 1:
            envelope[name] = cursor.text()
    for index, (name, read) in enumerate(
        [("link", lambda: LINKS[cursor.take(1)[0]]), ("role", lambda: ROLES[cursor.take(1)[0]]), ("cadence_s", cursor.varint)]
    ):
        if present >> 8 + index & 1:
            envelope[name] = read()
    if frame[3] & 15 == 5:
        profile = {"version": cursor.text(), "pane_start_us": cursor.signed(), "pane_length_us": cursor.varint()}
        return envelope, profile | {"profile": cursor.take(cursor.varint())}
    rows, types = cursor.varint(), [field["ty"] for field in schema["fields"]]
    if rows == 0:
        return envelope, [[] for _ in types]
    descriptors = []
    while len(descriptors) < len(types):
        byte = cursor.take(1)[0]
        run = (byte >> 5) + 1
        descriptors += [byte & 31] * (run if run < 8 else min(run + cursor.varint(), len(types)))
    origin = sent // UNITS[unit]
    return envelope, [decode_column(cursor, ty, d, rows, unit, origin) for ty, d in zip(types, descriptors)]
