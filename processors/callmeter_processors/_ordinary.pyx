# cython: language_level=3, boundscheck=False, wraparound=False, binding=False
"""The compiled reader of ordinary lines; ``ordinary`` says what it is for and makes its table."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.list cimport PyList_Append
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.ref cimport PyObject
from libc.string cimport memchr, memcmp, memcpy

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1

ctypedef unsigned char byte
ctypedef const byte *text

cdef enum:
    FIELDS = 48
    SLOTS = 128
    UNITS = 64
    TAGS = 32
    TEXT = 0  # kinds of a field's value
    HEX = 1
    UUID = 2
    NUMBER = 3
    TEXTS = 4
    COUNTS = 5

cdef struct Field:
    text name
    Py_ssize_t size
    int kind
    long long low
    long long high

cdef struct Span:
    text start
    Py_ssize_t size

cdef byte PLAIN[256]  # may stand in a text: printable ASCII but for the quote and the backslash
cdef byte IS_HEX[256]

cdef int _i
for _i in range(256):
    PLAIN[_i] = 32 <= _i < 127 and _i != 34 and _i != 92
    IS_HEX[_i] = 48 <= _i < 58 or 97 <= _i < 103


cdef inline text text_end(text at, text end) noexcept nogil:
    """Where the text that begins at ``at`` has its quote; NULL if it is not plain to the end."""
    while at < end and PLAIN[at[0]]:
        at += 1
    return at if at < end and at[0] == 34 else NULL


cdef inline text number_end(text at, text end, long long *found) noexcept nogil:
    """Behind a number as JSON has it: digits alone, 18 at most; NULL if it is another."""
    cdef text start = at
    cdef long long value = 0
    while at < end and 48 <= at[0] < 58:
        value = value * 10 + (at[0] - 48)
        at += 1
        if at - start > 18:
            return NULL
    if at == start or (start[0] == 48 and at - start > 1):
        return NULL
    found[0] = value
    return at


cdef inline bint same(Span one, Span other) noexcept nogil:
    return one.size == other.size and memcmp(one.start, other.start, one.size) == 0


cdef class Reader:
    """Reads lines by a table of fields: (name, kind, least, most), and the names that it needs."""

    cdef object _names
    cdef Field _fields[FIELDS]
    cdef int _slots[SLOTS]
    cdef int _count
    cdef unsigned long long _required
    cdef int _keys[8]
    cdef int _key_count
    cdef int _ts, _started, _latency, _ttft, _usage
    cdef bytes _opening
    cdef text _begin
    cdef Py_ssize_t _begin_size
    # Of the line at hand:
    cdef Span _spans[FIELDS]
    cdef long long _numbers[FIELDS]
    cdef Span _units[UNITS]
    cdef long long _counts[UNITS]
    cdef int _unit_count
    cdef unsigned long long _seen
    cdef byte *_out
    cdef Py_ssize_t _room, _size
    cdef byte _key[4096]

    def __cinit__(self, bytes opening, list fields, list required, list key, minute_us):
        cdef int at
        cdef Field *field
        if len(fields) > FIELDS or len(key) > 8:
            raise ValueError("more fields than the reader has room for")
        self._opening = opening
        self._begin, self._begin_size = <text>PyBytes_AS_STRING(opening), len(opening)
        self._names = [name for name, *_ in fields]
        for at in range(SLOTS):
            self._slots[at] = -1
        for at, (name, kind, low, high) in enumerate(fields):
            field = &self._fields[at]
            field.name = <text>PyBytes_AS_STRING(name)
            field.size = len(name)
            field.kind, field.low, field.high = kind, low, high
            slot = self._hash(field.name, field.size)
            while self._slots[slot] >= 0:
                slot = (slot + 1) % SLOTS
            self._slots[slot] = at
        self._count = len(fields)
        index = self._names.index
        for name in required:
            self._required |= 1ULL << <int>index(name)
        for at, name in enumerate(key):
            self._keys[at] = index(name)
        self._key_count = len(key)
        self._ts, self._started = index(b"ts_us"), index(b"started_us")
        self._latency, self._ttft = index(b"latency_us"), index(b"ttft_us")
        self._usage = index(b"usage")
        self._room = 1 << 16
        self._out = <byte *>PyMem_Malloc(self._room)
        if self._out == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self._out)

    cdef inline int _hash(self, text name, Py_ssize_t size) noexcept nogil:
        return (size * 31 + name[0] * 7 + name[size - 1] * 3 + name[size >> 1]) & (SLOTS - 1)

    cdef int _field(self, text name, Py_ssize_t size) noexcept nogil:
        cdef int slot, at
        if size == 0:
            return -1
        slot = self._hash(name, size)
        while True:
            at = self._slots[slot]
            if at < 0:
                return -1
            if self._fields[at].size == size and memcmp(self._fields[at].name, name, size) == 0:
                return at
            slot = (slot + 1) & (SLOTS - 1)

    cdef text _texts(self, text at, text end) noexcept nogil:
        """Behind an object of texts, each name once."""
        cdef Span names[TAGS]
        cdef int count = 0, other
        cdef text close
        if at >= end or at[0] != 123:
            return NULL
        at += 1
        if at < end and at[0] == 125:
            return at + 1
        while True:
            if count == TAGS or at >= end or at[0] != 34:
                return NULL
            close = text_end(at + 1, end)
            if close == NULL:
                return NULL
            names[count].start, names[count].size = at + 1, close - at - 1
            for other in range(count):
                if same(names[other], names[count]):
                    return NULL
            count += 1
            at = close + 1
            if end - at < 2 or at[0] != 58 or at[1] != 34:
                return NULL
            close = text_end(at + 2, end)
            if close == NULL:
                return NULL
            at = close + 1
            if at >= end:
                return NULL
            if at[0] == 125:
                return at + 1
            if at[0] != 44:
                return NULL
            at += 1

    cdef text _usage_of(self, Field *field, text at, text end) noexcept nogil:
        """Behind a usage: units and counts, each unit once."""
        cdef int count = 0, other
        cdef text close
        self._unit_count = 0
        if at >= end or at[0] != 123:
            return NULL
        at += 1
        if at < end and at[0] == 125:
            return at + 1
        while True:
            if count == UNITS or at >= end or at[0] != 34:
                return NULL
            close = text_end(at + 1, end)
            if close == NULL or close == at + 1 or close - at - 1 > field.low:
                return NULL
            self._units[count].start, self._units[count].size = at + 1, close - at - 1
            for other in range(count):
                if same(self._units[other], self._units[count]):
                    return NULL
            at = close + 1
            if at >= end or at[0] != 58:
                return NULL
            at = number_end(at + 1, end, &self._counts[count])
            if at == NULL or at >= end or self._counts[count] > field.high:
                return NULL
            count += 1
            self._unit_count = count
            if at[0] == 125:
                return at + 1
            if at[0] != 44:
                return NULL
            at += 1

    cdef text _value(self, int which, text at, text end) noexcept nogil:
        """Behind the value of a field; NULL if it is none that may pass unseen."""
        cdef Field *field = &self._fields[which]
        cdef text close
        cdef Py_ssize_t i, size
        if field.kind == NUMBER:
            at = number_end(at, end, &self._numbers[which])
            if at != NULL and not field.low <= self._numbers[which] <= field.high:
                return NULL
            return at
        if field.kind == TEXTS:
            return self._texts(at, end)
        if field.kind == COUNTS:
            return self._usage_of(field, at, end)
        if at >= end or at[0] != 34:
            return NULL
        at += 1
        close = text_end(at, end)
        if close == NULL:
            return NULL
        size = close - at
        if not field.low <= size <= field.high:
            return NULL
        self._spans[which].start, self._spans[which].size = at, size
        if field.kind == HEX:
            for i in range(size):
                if not IS_HEX[at[i]]:
                    return NULL
        elif field.kind == UUID:
            for i in range(36):
                if i == 8 or i == 13 or i == 18 or i == 23:
                    if at[i] != 45:
                        return NULL
                elif not IS_HEX[at[i]]:
                    return NULL
        return close + 1

    cdef bint _line(self, text at, text end) noexcept nogil:
        """Whether a line, without its newline, is ordinary; its values are in place then."""
        cdef text close
        cdef int which
        self._seen = 0
        self._unit_count = -1
        if end - at < self._begin_size or memcmp(at, self._begin, self._begin_size) != 0:
            return False
        at += self._begin_size
        while True:
            if at >= end or at[0] != 34:
                return False
            close = <text>memchr(at + 1, 34, end - at - 1)
            if close == NULL or end - close < 2 or close[1] != 58:
                return False
            which = self._field(at + 1, close - at - 1)
            if which < 0 or self._seen >> which & 1:
                return False
            self._seen |= 1ULL << which
            at = self._value(which, close + 2, end)
            if at == NULL or at >= end:
                return False
            if at[0] == 125:
                return at + 1 == end and self._seen & self._required == self._required
            if at[0] != 44:
                return False
            at += 1

    cdef object _place(self):
        """The key of the calls like this one."""
        cdef byte *at = self._key
        cdef long long minute = self._numbers[self._started] // 60_000_000
        cdef int i, which
        memcpy(at, &minute, 8)
        at += 8
        for i in range(self._key_count):
            which = self._keys[i]
            if self._seen >> which & 1:
                memcpy(at, self._spans[which].start, self._spans[which].size)
                at += self._spans[which].size
            at[0] = 0
            at += 1
        at[0] = self._seen >> self._usage & 1
        at += 1
        for i in range(max(0, self._unit_count)):
            if at - self._key + self._units[i].size + 1 > 4096:
                return None
            memcpy(at, self._units[i].start, self._units[i].size)
            at += self._units[i].size
            at[0] = 0
            at += 1
        return PyBytes_FromStringAndSize(<char *>self._key, at - self._key)

    cdef int _put(self, text start, Py_ssize_t size) except -1:
        cdef byte *more
        if self._size + size > self._room:
            more = <byte *>PyMem_Realloc(self._out, 2 * (self._size + size))
            if more == NULL:
                raise MemoryError
            self._out = more
            self._room = 2 * (self._size + size)
        memcpy(self._out + self._size, start, size)
        self._size += size
        return 0

    cdef int _add(self, text start, text end, tuple known) except -1:
        """Count the call where its like are, and write its line; 0 if it has no price after all."""
        alike = known[0]
        cdef int i, overflow = 0
        cdef long long small
        cdef byte digits[24]
        cdef byte *at
        cdef list counts = []
        for i in range(max(0, self._unit_count)):
            counts.append(self._counts[i])
        cost_of = known[1]
        pico = None
        if cost_of is not None:
            pico = cost_of(*counts)
            if pico is None:
                return 0
        cdef list samples = alike.samples
        samples.append(self._numbers[self._started])
        samples.append(self._numbers[self._latency] if self._seen >> self._latency & 1 else -1)
        samples.append(self._numbers[self._ttft] if self._seen >> self._ttft & 1 else -1)
        samples.extend(counts)
        if pico is None:
            self._put(start, end - start)
            self._put(<text>b"\n", 1)
            return 1
        alike.cost_pico += pico
        self._put(start, end - start - 1)
        small = PyLong_AsLongLongAndOverflow(pico, &overflow)
        if overflow or small < 0:
            written = b"%d" % pico
            self._put(<text>known[2], len(known[2]))
            self._put(<text>written, len(written))
        else:
            self._put(<text>PyBytes_AS_STRING(known[2]), PyBytes_GET_SIZE(known[2]))
            at = digits + 24
            while True:
                at -= 1
                at[0] = 48 + small % 10
                small //= 10
                if small == 0:
                    break
            self._put(at, digits + 24 - at)
        self._put(<text>PyBytes_AS_STRING(known[3]), PyBytes_GET_SIZE(known[3]))
        return 1

    def read(self, bytes value, Py_ssize_t at, long long fence_us, dict places):
        """Lines of an envelope from ``at`` on.

        Gives what is to be written of them, with None where an odd line stands, and the odd ones:
        each with the key of its place, if it is odd only because that is not known.
        """
        cdef text here = <text>PyBytes_AS_STRING(value) + at
        cdef text end = <text>PyBytes_AS_STRING(value) + PyBytes_GET_SIZE(value)
        cdef text close
        cdef list runs = [], odd = []
        cdef PyObject *found
        self._size = 0
        while here < end:
            close = <text>memchr(here, 10, end - here)
            if close == NULL:
                close = end
            key = None
            if (
                self._line(here, close)
                and self._numbers[self._ts] <= fence_us
                and self._numbers[self._started] <= fence_us
            ):
                key = self._place()
                found = PyDict_GetItem(places, key)
                if found != NULL and self._add(here, close, <tuple>found):
                    here = close + 1
                    continue
            if self._size:
                runs.append(PyBytes_FromStringAndSize(<char *>self._out, self._size))
                self._size = 0
            runs.append(None)
            odd.append((PyBytes_FromStringAndSize(<char *>here, min(close + 1, end) - here), key))
            here = close + 1
        if self._size:
            runs.append(PyBytes_FromStringAndSize(<char *>self._out, self._size))
        return runs, odd
