# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, binding=False
"""The compiled half of ``ordinary``, which says what it is for and gives it the table of fields."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.string cimport memchr, memcmp, memcpy

from msgspec.json import decode

from callmeter_processors.metered import tail_of

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1

ctypedef unsigned char byte
ctypedef const byte *text
ctypedef unsigned long long bits

cdef enum:
    MAX_FIELDS = 48
    SLOTS = 128
    MAX_UNITS = 64
    MAX_TEXTS = 32
    MAX_KEYS = 8
    KEY_BYTES = 8192
    LINES_AT_A_TIME = 32

cpdef enum Kind:
    """What the value of a field is. ``least`` and ``most`` are of a number or a text's length."""
    TEXT
    HEX
    UUID
    NUMBER
    TEXTS
    COUNTS

cdef struct Field:
    text name
    Py_ssize_t size
    int kind
    long long least
    long long most

cdef struct Span:
    text start
    text end

cdef byte ASCII[256]  # what a text is made of that is its own JSON
cdef byte UTF8[256]  # the same where the envelope is known to be good UTF-8
cdef byte LOWER_HEX[256]

cdef int _character
for _character in range(256):
    UTF8[_character] = _character >= 32 and _character != c'"' and _character != c"\\"
    ASCII[_character] = UTF8[_character] and _character < 128
    LOWER_HEX[_character] = c"0" <= _character <= c"9" or c"a" <= _character <= c"f"


cdef inline text _number(text at, text end, long long *found) noexcept nogil:
    """Behind digits, 18 at most and none of them a leading zero; NULL if there are none such."""
    cdef text start = at
    cdef long long value = 0
    while at < end and c"0" <= at[0] <= c"9":
        value = value * 10 + (at[0] - c"0")
        at += 1
        if at - start > 18:
            return NULL
    if at == start or (start[0] == c"0" and at - start > 1):
        return NULL
    found[0] = value
    return at


cdef inline bint _among(Span *spans, int count) noexcept nogil:
    """Whether the span behind ``count`` others is the same as one of them."""
    cdef Py_ssize_t size = spans[count].end - spans[count].start
    cdef int other
    for other in range(count):
        if (
            spans[other].end - spans[other].start == size
            and memcmp(spans[other].start, spans[count].start, size) == 0
        ):
            return True
    return False


cdef class OrdinaryReader:
    """Reads envelopes; see ``ordinary.Reader``. To the fold it is the call of the line at hand.

    ``fields`` are (name, kind, least, most, default); ``row_key`` names texts. ``opening`` is what
    lines begin with, up to their first field.
    """

    cdef bytes _opening
    cdef list _names
    cdef dict _places
    cdef list _defaults
    cdef Field _fields[MAX_FIELDS]
    cdef int _slots[SLOTS]
    cdef bits _required
    cdef int _row_key[MAX_KEYS]
    cdef int _row_keys
    cdef int _ts, _started, _latency, _ttft, _usage
    cdef bits _unusual
    cdef text _first
    cdef Py_ssize_t _first_size
    cdef text _plain

    # The line at hand.
    cdef bits _seen
    cdef Span _spans[MAX_FIELDS]
    cdef long long _numbers[MAX_FIELDS]
    cdef Span _units[MAX_UNITS]
    cdef long long _counts[MAX_UNITS]
    cdef int _unit_count
    cdef public object cost_pico
    cdef public object cost_source
    cdef public object price_version

    # What is written.
    cdef byte *_out
    cdef Py_ssize_t _room, _size

    def __cinit__(self, bytes opening, list fields, list required, list row_key, object unset):
        cdef int at, slot
        cdef bytes name
        if len(fields) > MAX_FIELDS or len(row_key) > MAX_KEYS:
            raise ValueError("more fields than the reader has room for")
        self._room = 1 << 16
        self._out = <byte *>PyMem_Malloc(self._room)
        if self._out == NULL:
            raise MemoryError
        self._opening = opening
        self._first, self._first_size = <text>PyBytes_AS_STRING(opening), len(opening)
        self._plain = &ASCII[0]
        self._names = [field[0] for field in fields]
        self._places = {name.decode(): at for at, name in enumerate(self._names)}
        self._defaults = [field[4] for field in fields]
        for slot in range(SLOTS):
            self._slots[slot] = -1
        for at, (name, kind, least, most, _) in enumerate(fields):
            self._fields[at] = Field(<text>PyBytes_AS_STRING(name), len(name), kind, least, most)
            slot = self._slot(self._fields[at].name, len(name))
            while self._slots[slot] >= 0:
                slot = (slot + 1) % SLOTS
            self._slots[slot] = at
        index = self._names.index
        for name in required:
            self._required |= <bits>1 << <int>index(name)
        self._row_keys = len(row_key)
        for at, name in enumerate(row_key):
            self._row_key[at] = index(name)
        self._ts, self._started = index(b"ts_us"), index(b"started_us")
        self._latency, self._ttft = index(b"latency_us"), index(b"ttft_us")
        self._usage = index(b"usage")
        self._unusual = (<bits>1 << <int>index(b"service_tier")) | (<bits>1 << <int>index(b"attempts"))
        self.cost_pico = unset
        self.cost_source = self.price_version = ""

    def __dealloc__(self):
        PyMem_Free(self._out)

    def __getattr__(self, str name):
        """A field of the call at hand, as ``CallEnd`` has it."""
        found = self._places.get(name)
        if found is None:
            raise AttributeError(name)
        cdef int at = found
        if not self._seen >> at & 1:
            return self._defaults[at]
        cdef int kind = self._fields[at].kind
        if kind == NUMBER:
            return self._numbers[at]
        said = self._spans[at].start[: self._spans[at].end - self._spans[at].start]
        return decode(said) if kind == TEXTS or kind == COUNTS else said.decode()

    # --- reading ----------------------------------------------------------------------------

    cdef inline int _slot(self, text name, Py_ssize_t size) noexcept nogil:
        return (size * 31 + name[0] * 7 + name[size - 1] * 3 + name[size >> 1]) & (SLOTS - 1)

    cdef inline int _field(self, text name, Py_ssize_t size) noexcept nogil:
        """The number of the field of this name; -1 if there is none."""
        cdef int slot, at
        if size == 0:
            return -1
        slot = self._slot(name, size)
        while True:
            at = self._slots[slot]
            if at < 0 or (
                self._fields[at].size == size and memcmp(self._fields[at].name, name, size) == 0
            ):
                return at
            slot = (slot + 1) & (SLOTS - 1)

    cdef inline text _text(self, text at, text end, Span *found) noexcept nogil:
        """Behind a text that is its own JSON; NULL if it is none."""
        if at >= end or at[0] != c'"':
            return NULL
        at += 1
        found.start = at
        while at < end and self._plain[at[0]]:
            at += 1
        found.end = at
        return at + 1 if at < end and at[0] == c'"' else NULL

    cdef text _map(self, Field *field, text at, text end) noexcept nogil:
        """Behind a usage or an object of texts that names nothing twice; NULL if it is none."""
        cdef Span names[MAX_TEXTS]
        cdef Span value
        cdef bint counting = field.kind == COUNTS
        cdef Span *keys = &self._units[0] if counting else &names[0]
        cdef int room = MAX_UNITS if counting else MAX_TEXTS
        cdef int count = 0
        cdef byte stop
        if at >= end or at[0] != c"{":
            return NULL
        at += 1
        if at < end and at[0] == c"}":
            at += 1
        else:
            while True:
                if count == room:
                    return NULL
                at = self._text(at, end, &keys[count])
                if at == NULL or at >= end or at[0] != c":" or _among(keys, count):
                    return NULL
                if counting:
                    if not 0 < keys[count].end - keys[count].start <= field.least:
                        return NULL
                    at = _number(at + 1, end, &self._counts[count])
                    if at == NULL or self._counts[count] > field.most:
                        return NULL
                else:
                    at = self._text(at + 1, end, &value)
                    if at == NULL:
                        return NULL
                count += 1
                if at >= end:
                    return NULL
                stop = at[0]
                at += 1
                if stop == c"}":
                    break
                if stop != c",":
                    return NULL
        if counting:
            self._unit_count = count
        return at

    cdef text _value(self, int which, text at, text end) noexcept nogil:
        """Behind the value of a field; NULL if the judge has to look at it."""
        cdef Field *field = &self._fields[which]
        cdef Span *span = &self._spans[which]
        cdef text start = at
        cdef int i
        if field.kind == NUMBER:
            at = _number(at, end, &self._numbers[which])
            if at != NULL and not field.least <= self._numbers[which] <= field.most:
                return NULL
            return at
        if field.kind == TEXTS or field.kind == COUNTS:
            at = self._map(field, at, end)
            span.start, span.end = start, at
            return at
        at = self._text(at, end, span)
        if at == NULL or not field.least <= span.end - span.start <= field.most:
            return NULL
        if field.kind == HEX:
            for i in range(field.most):
                if not LOWER_HEX[span.start[i]]:
                    return NULL
        elif field.kind == UUID:
            for i in range(36):
                if i == 8 or i == 13 or i == 18 or i == 23:
                    if span.start[i] != c"-":
                        return NULL
                elif not LOWER_HEX[span.start[i]]:
                    return NULL
        return at

    cdef bint _ordinary(self, text at, text end) noexcept nogil:
        """Whether a line, without its newline, is ordinary: then it is at hand."""
        cdef Span name
        cdef int which
        cdef byte stop
        self._seen = 0
        self._unit_count = 0
        if end - at < self._first_size or memcmp(at, self._first, self._first_size) != 0:
            return False
        at += self._first_size
        while True:
            at = self._text(at, end, &name)
            if at == NULL or at >= end or at[0] != c":":
                return False
            which = self._field(name.start, name.end - name.start)
            if which < 0 or self._seen >> which & 1:
                return False
            self._seen |= <bits>1 << which
            at = self._value(which, at + 1, end)
            if at == NULL or at >= end:
                return False
            stop = at[0]
            at += 1
            if stop == c"}":
                return at == end and self._seen & self._required == self._required
            if stop != c",":
                return False

    cdef bytes _place(self):
        """Minute, row key and units of the call at hand."""
        cdef byte key[KEY_BYTES]
        cdef byte *at = key
        cdef long long minute = self._numbers[self._started] // 60_000_000
        cdef Span *span
        cdef int i, which
        memcpy(at, &minute, 8)
        at += 8
        for i in range(self._row_keys + self._unit_count):
            if i < self._row_keys:
                which = self._row_key[i]
                span = &self._spans[which] if self._seen >> which & 1 else NULL
            else:
                span = &self._units[i - self._row_keys]
            if span != NULL:
                memcpy(at, span.start, span.end - span.start)
                at += span.end - span.start
            at[0] = 0
            at += 1
        at[0] = self._seen >> self._usage & 1
        return PyBytes_FromStringAndSize(<char *>key, at + 1 - key)

    # --- adding and writing -----------------------------------------------------------------

    cdef int _put(self, text start, Py_ssize_t size) except -1:
        cdef byte *more
        if self._size + size > self._room:
            more = <byte *>PyMem_Realloc(self._out, 2 * (self._size + size))
            if more == NULL:
                raise MemoryError
            self._out, self._room = more, 2 * (self._size + size)
        memcpy(self._out + self._size, start, size)
        self._size += size
        return 0

    cdef int _put_bytes(self, bytes what) except -1:
        return self._put(<text>PyBytes_AS_STRING(what), PyBytes_GET_SIZE(what))

    cdef int _put_number(self, object number) except -1:
        cdef int overflow = 0
        cdef long long rest = PyLong_AsLongLongAndOverflow(number, &overflow)
        cdef byte digits[20]
        cdef byte *at = digits + 20
        if overflow or rest < 0:
            return self._put_bytes(b"%d" % number)
        while True:
            at -= 1
            at[0] = c"0" + rest % 10
            rest = rest // 10
            if rest == 0:
                return self._put(at, digits + 20 - at)

    cdef int _add(self, text start, text end, object alike, object pricer) except -1:
        """Have the call at hand counted and priced, and write its line."""
        cdef bits seen = self._seen
        cdef object cost_of = alike.cost_of
        cdef object pico = None
        cdef list samples
        cdef int i
        if seen & self._unusual or alike.watched:
            return self._add_unusual(start, end, alike, pricer)
        counts = tuple([self._counts[i] for i in range(self._unit_count)])
        if cost_of is not None:
            pico = cost_of(*counts)
        if pico is None and seen >> self._usage & 1 and alike.is_model:
            return self._add_unusual(start, end, alike, pricer)
        # What ``Alike.add`` does with nearly every call.
        samples = alike.samples
        samples.append(self._numbers[self._started])
        samples.append(self._numbers[self._latency] if seen >> self._latency & 1 else -1)
        samples.append(self._numbers[self._ttft] if seen >> self._ttft & 1 else -1)
        samples.extend(counts)
        if pico is None:
            self._put(start, end - start)
            return self._put(<text>b"\n", 1)
        alike.cost_pico += pico
        self._put(start, end - start - 1)
        self._put(<text>b',"cost_pico":"', 14)
        self._put_number(pico)
        return self._put_bytes(alike.tail)

    cdef int _add_unusual(self, text start, text end, object alike, object pricer) except -1:
        """The same by ``Alike.add``: it sees the reader as a call."""
        unset = self.cost_pico
        try:
            alike.add(self, self.started_us, self.usage, pricer)
            self._put(start, end - start - 1)
            if self.cost_pico is not unset:
                self._put_bytes(b',"cost_pico":"' + self.cost_pico.encode())
                self._put_bytes(tail_of(self.cost_source, self.price_version))
            else:
                self._put(<text>b"}\n", 2)
        finally:
            self.cost_pico = unset
            self.cost_source = self.price_version = ""
        return 0

    cdef bytes _written(self):
        cdef Py_ssize_t size = self._size
        self._size = 0
        return PyBytes_FromStringAndSize(<char *>self._out, size)

    def read(self, bytes value, long long fence_us, dict known, object meet, object pricer):
        """See ``ordinary.Reader``."""
        cdef text here = <text>PyBytes_AS_STRING(value)
        cdef text end = here + PyBytes_GET_SIZE(value)
        cdef text close = <text>memchr(here, c"\n", end - here)
        cdef list runs = []
        cdef list odd = None
        cdef bytes key
        self._size = 0
        self._plain = &UTF8[0] if _is_utf8(value) else &ASCII[0]
        here = end if close == NULL else close + 1
        while here < end:
            close = <text>memchr(here, c"\n", end - here)
            if close == NULL:
                close = end
            if (
                self._ordinary(here, close)
                and self._numbers[self._ts] <= fence_us
                and self._numbers[self._started] <= fence_us
            ):
                odd = None
                key = self._place()
                alike = known.get(key)
                if alike is None:
                    alike = known[key] = meet(self)
                self._add(here, close, alike, pricer)
            else:
                if self._size:
                    runs.append(self._written())
                if odd is None or len(odd) == LINES_AT_A_TIME:
                    odd = []
                    runs.append(odd)
                odd.append(here[: min(close + 1, end) - here])
            here = close + 1
        if self._size:
            runs.append(self._written())
        return runs


cdef bint _is_utf8(bytes value):
    if value.isascii():
        return True
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
