# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, binding=False
"""The line of an ordinary call, read where it lies: nothing is made of it until it is asked for."""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.string cimport memcmp

from msgspec.json import decode

cdef extern from "Python.h":
    str PyUnicode_DecodeUTF8(const char *start, Py_ssize_t size, const char *errors)

cpdef enum Kind:
    """What the value of a field is. ``least`` and ``most`` are of a number or a text's length."""
    TEXT
    HEX
    UUID
    NUMBER
    TEXTS
    COUNTS

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


cdef class CallLine:
    """Reads lines by a table and is the call of the one at hand, as ``CallEnd`` would have it.

    ``opening`` is what lines begin with, up to their first field. ``fields`` are (name, kind,
    least, most, default); ``required`` names some of them. A line is ordinary if it has no blanks
    and no escapes, and names known fields alone, each once and within its limits.
    """

    def __cinit__(self, bytes opening, list fields, list required, *_):
        cdef int at, slot
        cdef bytes name
        if len(fields) > MAX_FIELDS:
            raise ValueError("more fields than a line has room for")
        self._opening, self._names = opening, [field[0] for field in fields]
        self._first, self._first_size = <text>PyBytes_AS_STRING(opening), len(opening)
        self._plain = &ASCII[0]
        self._defaults = [field[4] for field in fields]
        self._places = {}
        for slot in range(SLOTS):
            self._slots[slot] = -1
        for at, (name, kind, least, most, _) in enumerate(fields):
            self._places[name.decode()] = at
            self._fields[at] = Field(<text>PyBytes_AS_STRING(name), len(name), kind, least, most)
            slot = self._slot(self._fields[at].name, len(name))
            while self._slots[slot] >= 0:
                slot = (slot + 1) % SLOTS
            self._slots[slot] = at
        for name in required:
            self._required |= <bits>1 << self.place(name)
        self._ts, self._started = self.place(b"ts_us"), self.place(b"started_us")
        self._latency, self._ttft = self.place(b"latency_us"), self.place(b"ttft_us")
        self._usage, self._status = self.place(b"usage"), self.place(b"status")
        self._user, self._session = self.place(b"user"), self.place(b"session")
        self._tags = self.place(b"tags")

    cdef int place(self, bytes name) except -1:
        """The number of a field; ``KeyError`` if the table has none of this name."""
        return self._places[name.decode()]

    def __getattr__(self, str name):
        """A field of the call at hand, as ``CallEnd`` has it."""
        found = self._places.get(name)
        if found is None:
            raise AttributeError(name)
        return self._said(found)

    @property
    def user(self):
        return self._said(self._user)

    @property
    def session(self):
        return self._said(self._session)

    @property
    def tags(self):
        if self._tags_said is None:
            self._tags_said = self._said(self._tags)
        return self._tags_said

    cdef object _said(self, int at):
        cdef int kind = self._fields[at].kind
        cdef Span *span = &self._spans[at]
        if not self._seen >> at & 1:
            return self._defaults[at]
        if kind == NUMBER:
            return self._numbers[at]
        if kind == TEXTS or kind == COUNTS:
            return decode(span.start[: span.end - span.start])
        return PyUnicode_DecodeUTF8(<const char *>span.start, span.end - span.start, NULL)

    cdef void trust_utf8(self, bint trust) noexcept nogil:
        """Whether what is not ASCII is known to be good UTF-8 in the lines to come."""
        self._plain = &UTF8[0] if trust else &ASCII[0]

    cdef void drop(self) noexcept nogil:
        """There is no line at hand any more: what it lay in may go."""
        self._seen = 0

    cdef int _slot(self, text name, Py_ssize_t size) noexcept nogil:
        return (size * 31 + name[0] * 7 + name[size - 1] * 3 + name[size >> 1]) & (SLOTS - 1)

    cdef int _field(self, text name, Py_ssize_t size) noexcept nogil:
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

    cdef text _text(self, text at, text end, Span *found) noexcept nogil:
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

    cdef bint take(self, text at, text end) noexcept nogil:
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
