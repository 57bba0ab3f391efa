# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, binding=False
"""The compiled half of ``ordinary``, which says what it is for and gives it the table of fields."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.string cimport memchr, memcmp, memcpy

from callmeter_processors._call_line cimport CallLine, Span, bits, byte, text

from callmeter_processors.foldrow import watch
from callmeter_processors.metered import tail_of

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1

cdef enum:
    MAX_KEYS = 8
    KEY_BYTES = 8192


cdef inline bint _is(Span *span, bytes name):
    cdef Py_ssize_t size = PyBytes_GET_SIZE(name)
    return span.end - span.start == size and not memcmp(span.start, PyBytes_AS_STRING(name), size)


cdef class OrdinaryReader(CallLine):
    """Reads envelopes; see ``ordinary.Reader``. To the fold it is the call of the line at hand.

    ``row_key`` names texts among the fields; lines for the judge come ``at_a_time``.
    """

    cdef int _row_key[MAX_KEYS]
    cdef int _row_keys
    cdef bits _unusual
    cdef int _at_a_time
    # What ``worth.settle`` fills in.
    cdef public object cost_pico
    cdef public object cost_source
    cdef public object price_version
    # What is written.
    cdef byte *_out
    cdef Py_ssize_t _room, _size

    def __cinit__(
        self,
        bytes opening,
        list fields,
        list required,
        list row_key,
        int at_a_time,
        object unset,
    ):
        cdef int at
        if len(row_key) > MAX_KEYS:
            raise ValueError("more keys than the reader has room for")
        self._room = 1 << 16
        self._out = <byte *>PyMem_Malloc(self._room)
        if self._out == NULL:
            raise MemoryError
        self._row_keys = len(row_key)
        for at in range(self._row_keys):
            self._row_key[at] = self.place(row_key[at])
        self._unusual = <bits>1 << self.place(b"service_tier") | <bits>1 << self.place(b"attempts")
        self._at_a_time = at_a_time
        self.cost_pico = unset
        self.cost_source = self.price_version = ""

    def __dealloc__(self):
        PyMem_Free(self._out)

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
        self._tags_said = None  # they were another line's
        if seen & self._unusual:
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
        if alike.is_model and alike.watched:
            self._watch(alike.watched, pico)
        if pico is None:
            self._put(start, end - start)
            return self._put(<text>b"\n", 1)
        alike.cost_pico += pico
        self._put(start, end - start - 1)
        self._put(<text>b',"cost_pico":"', 14)
        self._put_number(pico)
        return self._put_bytes(alike.tail)

    cdef int _watch(self, tuple watched, object pico) except -1:
        """What ``foldrow.watch`` does with nearly every call."""
        cdef Span *status = &self._spans[self._status]
        cdef long long tokens = 0
        cdef int i
        if pico is None or status.end - status.start != 2 or memcmp(status.start, b"ok", 2) != 0:
            watch(watched, self, pico)
            return 0
        for i in range(self._unit_count):
            if _is(&self._units[i], b"input") or _is(&self._units[i], b"output"):
                tokens += self._counts[i]
        for fine in watched:
            who = fine.of(self)
            (<list>fine.samples).extend((who, pico, tokens))
            if fine.latencies is not None and self._seen >> self._latency & 1:
                fine.latencies.setdefault(who, []).append(self._numbers[self._latency])
        return 0

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

    def count(self, bytes value):
        """See ``ordinary.Reader``."""
        cdef text here = <text>PyBytes_AS_STRING(value)
        cdef text end = here + PyBytes_GET_SIZE(value)
        cdef int lines = 0
        while here < end:
            lines += 1
            here = <text>memchr(here, c"\n", end - here)
            if here == NULL:
                break
            here += 1
        return lines

    def read(self, bytes value, long long fence_us, dict known, object meet, object pricer):
        """See ``ordinary.Reader``."""
        cdef text here = <text>PyBytes_AS_STRING(value)
        cdef text end = here + PyBytes_GET_SIZE(value)
        cdef text close = <text>memchr(here, c"\n", end - here)
        cdef list runs = []
        cdef list odd = None
        cdef bytes key
        self._size = 0
        self.trust_utf8(_is_utf8(value))
        here = end if close == NULL else close + 1
        while here < end:
            close = <text>memchr(here, c"\n", end - here)
            if close == NULL:
                close = end
            if (
                self.take(here, close)
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
                if odd is None or len(odd) == self._at_a_time:
                    odd = []
                    runs.append(odd)
                odd.append(here[: min(close + 1, end) - here])
            here = close + 1
        if self._size:
            runs.append(self._written())
        self.drop()
        return runs


cdef bint _is_utf8(bytes value):
    if value.isascii():
        return True
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
