# cython: language_level=3
"""What a call and the intake hold in C; see ``plain_hot`` for what each of it is."""

from libc.stdint cimport uint64_t

cdef class HotIntake:
    cdef readonly object queue
    cdef readonly dict open
    cdef public object anchor
    cdef public bint keeps_all
    cdef public Py_ssize_t alarm
    cdef object _append
    cdef object _mono
    cdef bint _clock_is_ours
    cdef uint64_t _low, _high

    cdef uint64_t _draw(self) noexcept
    cdef long long _now(self) except? -1

cdef class HotCall:
    cdef public HotIntake intake
    cdef public object name
    cdef public dict fields
    cdef public dict later
    cdef public object units
    cdef public dict extra
    cdef public object root
    cdef public object parent
    cdef public object _token
    cdef object _labels
    cdef object _anchor
    cdef uint64_t _span
    cdef long long _start_ns, _end_ns
    cdef bint _sampled, _has_span, _has_start, _has_end

    cdef int _begin(self) except -1
    cdef int _finish(self, exc) except -1
