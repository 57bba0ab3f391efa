# cython: language_level=3
"""What a call's line is to those that are compiled with it; see ``_call_line.pyx``."""

ctypedef unsigned char byte
ctypedef const byte *text
ctypedef unsigned long long bits

cdef enum:
    MAX_FIELDS = 48
    SLOTS = 128
    MAX_UNITS = 64
    MAX_TEXTS = 32

cdef struct Field:
    text name
    Py_ssize_t size
    int kind
    long long least
    long long most

cdef struct Span:
    text start
    text end

cdef class CallLine:
    # The table.
    cdef bytes _opening
    cdef list _names  # keeps what the fields point to
    cdef dict _places
    cdef list _defaults
    cdef Field _fields[MAX_FIELDS]
    cdef int _slots[SLOTS]
    cdef bits _required
    cdef int _ts, _started, _latency, _ttft, _usage, _status, _user, _session, _tags
    cdef text _first
    cdef Py_ssize_t _first_size
    cdef text _plain

    # The line at hand: which fields it has, where they are, what they are.
    cdef bits _seen
    cdef Span _spans[MAX_FIELDS]
    cdef long long _numbers[MAX_FIELDS]
    cdef Span _units[MAX_UNITS]
    cdef long long _counts[MAX_UNITS]
    cdef int _unit_count
    cdef dict _tags_said

    cdef int place(self, bytes name) except -1
    cdef void trust_utf8(self, bint trust) noexcept nogil
    cdef bint take(self, text at, text end) noexcept nogil
    cdef void drop(self) noexcept nogil

    cdef int _slot(self, text name, Py_ssize_t size) noexcept nogil
    cdef int _field(self, text name, Py_ssize_t size) noexcept nogil
    cdef text _text(self, text at, text end, Span *found) noexcept nogil
    cdef text _map(self, Field *field, text at, text end) noexcept nogil
    cdef text _value(self, int which, text at, text end) noexcept nogil
    cdef object _said(self, int at)
